"""`mocae judge`: a local judge learned from labelled data, in a folder that recipes and suites can name; its audit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from mocae.data import read_source
from mocae.errors import ArtifactError, ConfigError, DataError
from mocae.files import make_readable
from mocae.judges import JUDGES, JudgeAudit, JudgeQuality, audit_judges, audit_prompts, build_judge
from mocae.judges.learned.classifier import ClassifierJudge, read_judge
from mocae.judges.learned.fitting import Fit
from mocae.judges.learned.refusal_classifier import read_refusal_labels
from mocae.judges.learned.unseen import FEWEST, UnseenModel, by_model
from mocae.outputs import claim, refuse_foreign
from mocae.pipelines.build import parse_named
from mocae.progress import say
from mocae.types import Answer, Example, prompt_id

__all__ = ["TRAINABLE", "Trained", "Worth", "audit_judge", "measure_judge", "train_judge", "worth_of"]

TRAINABLE: Mapping[str, str] = {
    "classifier": "mocae.judges.learned.own:fit_classifier",
    "refusal-classifier": "mocae.judges.learned.refusal_classifier:fit_refusal_classifier",
    "refusal-signs": "mocae.judges.learned.refusal_classifier:fit_refusal_signs",
    "safety-classifier": "mocae.judges.learned.safety:fit_safety_classifier",
}
"""Judges that learn, and what fits each."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained judge, where it lies, and from how many prompts it has learned."""

    judge: ClassifierJudge
    folder: Path

    @property
    def option(self) -> str:
        """The line of a recipe or suite that names it."""
        return f"{{judge: {self.judge.name.partition(':')[0]}, options: {{saved: {self.folder}}}}}"


def train_judge(
    name: str,
    labelled: Sequence[Path],
    *,
    out: Path,
    states: str | None = None,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    exclude: Iterable[str] = (),
    judgement: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Trained:
    """Return a judge fitted on labelled answers, measured on held-out prompts and saved in a folder.

    Args:
        name: a name in `TRAINABLE`.
        labelled: the files it learns from, in the form that judge reads.
        out: folder to write; it may not hold a judge.
        states: folder or hub id of a causal model whose states it looks at; None: it looks at words and signs.
        layers: of that model, by number; None: one in the middle.
        seed: of the split into learned and held-out prompts.
        exclude: prompts it must not learn from, such as those of a test split.
        judgement: what `classifier` judges; the others know theirs.
        columns: where `classifier` finds prompt, response, label and model, see `read_labels`.

    Raises:
        ConfigError: no such judge, one that does not learn, `judgement` missing or out of place, or a model that cannot
            be loaded.
        ArtifactError: the folder holds a judge already, or cannot be written.
        DataError: the data cannot be used.
    """
    fit = _fit_of(name)
    own = {key: value for key, value in {"judgement": judgement, "columns": columns}.items() if value}
    if (name == "classifier") is not ("judgement" in own) or (own and name != "classifier"):
        raise ConfigError(f"judge train {name}: 'classifier' needs --judgement, what its labels are about; others none")
    if (out / "judge.json").exists():
        raise ArtifactError(f"{out}: holds a judge already; choose another folder or remove it")
    refuse_foreign(out, "judge train")
    say(f"judge {name}: learning from {', '.join(path.name for path in labelled)}")
    excluded = frozenset(map(prompt_id, exclude))
    judge = fit(*labelled, states=states, layers=layers, seed=seed, exclude_prompts=excluded, **own)
    try:
        judge.save(out)
        make_readable(out)
        claim(out, "judge train")
    except OSError as error:
        raise ArtifactError(
            f"{out}: the judge cannot be saved ({error.strerror or error}); choose another folder"
        ) from error
    return Trained(judge, out)


@dataclass(frozen=True, slots=True)
class Worth:
    """What is known of how far a judge can be trusted.

    Attributes:
        judge: its name.
        about: what it judges, in one line.
        exact: whether the task defines which answers are right.
        quality: agreement with labels it has not learned from; None: not measured.
        audit: what it says to constant answers; None: not measured.
        unseen: agreement with each labelled model that was left out.
        n_learned_from: prompts it has learned from.
        states: the model whose hidden states it reads, "" for one that reads words.
    """

    judge: str
    about: str
    exact: bool = False
    quality: JudgeQuality | None = None
    audit: JudgeAudit | None = None
    unseen: tuple[UnseenModel, ...] = ()
    n_learned_from: int = 0
    states: str = ""


def worth_of(name: str) -> Worth:
    """Return what is known of a judge, without judging anything.

    Args:
        name: a registered judge, `name:{"option": value}`, or the folder of a trained one. A name comes before a folder
            of that name, which is "./name".

    Raises:
        ConfigError, PluginError, DataError: the judge cannot be made.
        ArtifactError: the folder holds no judge, or a damaged one.
    """
    if name.partition(":")[0] in JUDGES:
        judge, options = parse_named(name, what="judge show")
        built = build_judge(judge, options)
        if not isinstance(built, ClassifierJudge):
            about = JUDGES.describe()[judge]
            return Worth(built.name, about, bool(getattr(built, "exact", False)), built.quality)
        name = str(options.get("saved", name))
    record = read_judge(Path(name))
    return Worth(
        record.judge,
        JUDGES.describe().get(record.judge.partition(":")[0], ""),
        quality=record.quality,
        audit=record.audit,
        unseen=record.unseen,
        n_learned_from=len(record.learned_from),
        states=record.states.model if record.states is not None else "",
    )


def audit_judge(judge: str, data: Path, *, source: str) -> JudgeAudit:
    """Return what a judge says to constant answers to the prompts of a file; it learns from none of them.

    Args:
        judge: a name, or `name:{"option": value}`.
        data: prompts, and real answers that a preface is put in front of.
        source: what reads the file, likewise.

    Raises:
        ConfigError, PluginError, DataError, ArtifactError: the judge cannot be made or the file cannot be read.
        DataError: the judge has no verdict on any of the prompts, or is exact.
    """
    reader, reading = parse_named(source, what="--source")
    examples = read_source(reader, data, axis="audit", on_bad_row="skip", options=reading).examples
    name, options = parse_named(judge, what="judge")
    built = build_judge(name, options, exclude_prompts=frozenset(example.id for example in examples))
    if getattr(built, "exact", False):
        raise DataError(f"judge {name!r} is exact: it decides as the task defines, there is nothing to audit")
    audit = audit_judges([built], audit_prompts(examples)).audits[0]
    if audit is None:
        raise DataError(
            f"{data}: judge {name!r} has no verdict on any of {len(examples)} prompts; give prompts of a probe it "
            "judges, with the references it needs"
        )
    return audit


def measure_judge(name: str, labelled: Sequence[Path]) -> tuple[UnseenModel, ...]:
    """Return how well a judge of refusals agrees with the labels of each model's answers; it learns from none of them.

    Args:
        name: a judge, or `name:{"option": value}`.
        labelled: files that `mocae.judges.learned.refusal_classifier.read_refusal_labels` reads.

    Raises:
        ConfigError, PluginError, ArtifactError: the judge cannot be made, gives no "refusal", or has learned from a
            prompt of the files.
        DataError: the files cannot be read, or no model in them has enough answers of both labels.
    """
    name, options = parse_named(name, what="judge")
    rows = read_refusal_labels(labelled)
    built = build_judge(name, options, exclude_prompts=frozenset(prompt_id(row.prompt) for row in rows))
    if "refusal" not in built.judgements:
        raise ConfigError(f"judge measure: {name!r} says {', '.join(built.judgements)}; expected a judge of refusals")
    verdicts = built.judge([Answer(Example(row.prompt, "measure", "benign"), row.answer) for row in rows])
    scores = [verdict["refusal"].score if "refusal" in verdict else None for verdict in verdicts]
    scored = [i for i, score in enumerate(scores) if score is not None]
    measured = by_model([scores[i] or 0.0 for i in scored], [rows[i] for i in scored])
    if not measured:
        raise DataError(
            f"judge measure: {len(rows)} labelled answers, none of a named model with {FEWEST} answers of both labels; "
            "give rows with a column 'model'"
        )
    return measured


def _fit_of(name: str) -> Fit:
    if name not in TRAINABLE:
        why = "it does not learn" if name in JUDGES else "no such judge"
        raise ConfigError(f"judge train: {name!r}: {why}. Judges that learn: {', '.join(map(repr, TRAINABLE))}")
    module, _, attribute = TRAINABLE[name].partition(":")
    fit: Fit = getattr(import_module(module), attribute)
    return fit
