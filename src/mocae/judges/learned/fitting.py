"""Learning a classifier judge from labelled answers, split by prompt."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from mocae.data import hash_fraction
from mocae.errors import ConfigError, DataError
from mocae.judges.audit import AuditPrompt, audit_judges
from mocae.judges.base import JudgeQuality, says_of
from mocae.judges.learned.classifier import ClassifierJudge, load_classifier
from mocae.judges.learned.design import Design, LabelledAnswer, endings
from mocae.judges.learned.unseen import leave_models_out
from mocae.types import Example, prompt_id

if TYPE_CHECKING:
    from mocae.judges.learned.states import StateReader

__all__ = ["ClassifierFitter", "Fit", "fit_labelled", "labelled_judge"]

_STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1)
"""Inverse penalties of a probe that are tried."""
_FOLDS = 5
_HELD_OUT = 0.2
"""Share of the prompts a judge is measured on."""
_FEW = 100
"""Prompts under which a fifth says too little: each is then judged by a judge of the others, and all are learned."""
_LEAST_ASPECT = 8
"""Rows of an aspect under which it gets no classifier of its own."""


@runtime_checkable
class Fit(Protocol):
    """What fits one kind of judge from its kind of labelled files."""

    def __call__(
        self,
        *labelled: Path,
        states: str | None = None,
        layers: Sequence[int] | None = None,
        seed: int = 0,
        exclude_prompts: Collection[str] = (),
    ) -> ClassifierJudge:
        """Return the judge, fitted and measured."""


class ClassifierFitter:
    """Collects labelled answers and learns from them.

    Args:
        design: what the classifier looks at.
        reader: of states that the classifier looks at in place of words and signs; None: it looks at those.
    """

    def __init__(self, design: Design, *, reader: StateReader | None = None) -> None:
        self._design, self._reader = design, reader
        self._rows: list[LabelledAnswer] = []

    def update(self, rows: Iterable[LabelledAnswer]) -> None:
        """Add rows to learn from."""
        self._rows.extend(rows)

    def learned(self) -> ClassifierJudge:
        """Return the judge, not measured.

        Raises:
            DataError: rows of one label only, or answers without a word.
        """
        _check_two_labels(self._design, self._rows, "to learn from")
        rows = _learned(self._design, self._rows)
        try:
            parts = _fit_parts(self._design, rows) if self._reader is None else _fit_probe(self._reader, rows)
        except ValueError as error:  # scikit-learn's word for texts without any word
            raise DataError(f"judge {self._design.name!r}: nothing to learn from: {error}") from error
        learned_from = frozenset(prompt_id(row.prompt) for row in self._rows)
        return ClassifierJudge(self._design, parts, None, learned_from, self._reader)

    def fit(self, held_out: Sequence[LabelledAnswer], *, note: str) -> ClassifierJudge:
        """Return the judge, measured and audited on rows it has not learned from.

        Args:
            held_out: labelled answers to other prompts.
            note: what the held-out labels are, for `JudgeQuality.note`.

        Raises:
            DataError: rows of one label only, on either side, or a prompt on both sides.
        """
        _check_two_labels(self._design, self._rows, "to learn from")
        _check_two_labels(self._design, held_out, "held out")
        learned_from = frozenset(prompt_id(row.prompt) for row in self._rows)
        both = learned_from.intersection(prompt_id(row.prompt) for row in held_out)
        if both:
            raise DataError(
                f"judge {self._design.name!r}: {len(both)} held-out prompts are also learned from; split by prompt"
            )
        judge = self.learned()
        scores = judge.scores([(row.prompt, row.answer) for row in held_out])
        quality = JudgeQuality.measure(scores, [row.holds for row in held_out], note=note)
        audit = audit_judges([judge], _audit_prompts(self._design, held_out)).audits[0]
        return replace(judge, quality=quality, audit=audit)


def fit_labelled(
    design: Design,
    read: Callable[[Sequence[Path]], Sequence[LabelledAnswer]],
    *labelled: Path,
    states: str | None = None,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    exclude_prompts: Collection[str] = (),
) -> ClassifierJudge:
    """Return a judge fitted on 80 % of the prompts and measured on the rest, and on models left out.

    The latter is measured for words alone and where rows name several models; it takes a few minutes of one core.

    Args:
        design: what the classifier looks at.
        read: files to labelled answers.
        labelled: the files.
        states: folder or hub id of a causal model whose states it looks at; None: it looks at words and signs.
        layers: see `StateReader`.
        seed: of the split; nothing else is drawn.
        exclude_prompts: identities of prompts whose rows are used for neither, such as the run's test prompts.

    Raises:
        DataError: a file cannot be read, or rows of one label only are left on either side.
        ConfigError: the model cannot be loaded or has fewer layers, or layers are given without it.
    """
    excluded = frozenset(exclude_prompts)
    every = read(labelled)
    few = len({row.prompt.strip() for row in every}) < _FEW
    rows = [row for row in every if prompt_id(row.prompt) not in excluded]
    place = {row.prompt.strip(): hash_fraction(f"{seed}\n{row.prompt.strip()}") for row in rows}
    reader = _reader(design, states, layers)
    names = ", ".join(path.name for path in labelled)
    how = "all prompts, a fifth at a time" if few else f"held-out prompts, about {_HELD_OUT:.0%} of them"
    note = f"labels of {names}: {how}; seed {seed}"
    if reader is not None:
        note += f"; reads states of {Path(reader.name).name}, layer {', '.join(map(str, reader.layers))}"
    with nullcontext() if reader is None else reader.remembered():
        if few:
            fold = {prompt: i % _FOLDS for i, prompt in enumerate(sorted(place, key=place.__getitem__))}
            judge = _cross_fitted(design, reader, rows, [fold[row.prompt.strip()] for row in rows], note=note)
        else:
            fitter = ClassifierFitter(design, reader=reader)
            fitter.update(row for row in rows if place[row.prompt.strip()] >= _HELD_OUT)
            judge = fitter.fit([row for row in rows if place[row.prompt.strip()] < _HELD_OUT], note=note)
    return judge if reader is not None else replace(judge, unseen=leave_models_out(design, rows, seed=seed))


def _cross_fitted(
    design: Design, reader: StateReader | None, rows: Sequence[LabelledAnswer], folds: Sequence[int], *, note: str
) -> ClassifierJudge:
    """Return a judge that learned from all rows, measured by judges each of which left out one fold.

    The audit is that of the first of them, on the prompts that it left out.
    """
    _check_two_labels(design, rows, "to learn from")
    scores, audit = [0.0] * len(rows), None
    for fold in sorted(set(folds)):
        fitter = ClassifierFitter(design, reader=reader)
        fitter.update(row for row, its in zip(rows, folds, strict=True) if its != fold)
        judge, out = fitter.learned(), [i for i, its in enumerate(folds) if its == fold]
        for i, score in zip(out, judge.scores([(rows[i].prompt, rows[i].answer) for i in out]), strict=True):
            scores[i] = score
        if audit is None:
            audit = audit_judges([judge], _audit_prompts(design, [rows[i] for i in out])).audits[0]
    whole = ClassifierFitter(design, reader=reader)
    whole.update(rows)
    quality = JudgeQuality.measure(scores, [row.holds for row in rows], note=note)
    return replace(whole.learned(), quality=quality, audit=audit)


def _reader(design: Design, states: str | None, layers: Sequence[int] | None) -> StateReader | None:
    if states is None:
        if layers is not None:
            raise ConfigError(f"judge {design.name!r}: 'layers' without 'states', the model whose layers are read")
        return None
    from mocae.judges.learned.states import load_reader  # imports torch, which words do not need

    return load_reader(states, None if layers is None else tuple(layers))


def _audit_prompts(design: Design, rows: Sequence[LabelledAnswer]) -> list[AuditPrompt]:
    """Return the rows' prompts, each with an answer that no preface may hide: unsafe, or not refusing."""
    hidden = design.judgement == "unsafe"
    probe = min(design.probes) if design.probes else "harmful"
    return [AuditPrompt(Example(r.prompt, "", probe), r.answer if r.holds is hidden else None) for r in rows]


def _check_two_labels(design: Design, rows: Sequence[LabelledAnswer], use: str) -> None:
    yes = sum(row.holds for row in rows)
    if not 0 < yes < len(rows):
        raise DataError(
            f"judge {design.name!r}: {len(rows)} labelled answers {use}, {yes} of them {design.labels[0]!r}; expected "
            "both labels, give more labelled data or exclude fewer prompts"
        )


def _learned(design: Design, rows: Sequence[LabelledAnswer]) -> list[LabelledAnswer]:
    # A judge that will read answers without their beginning learns from some; more of them taught it nothing.
    rows = [replace(row, answer=end) for row in rows for end in endings(row.answer, min(design.drops, 1))]
    return [*rows, *(varied.row for varied in design.varied(rows))] if design.varied is not None else rows


def _fit_parts(design: Design, rows: Sequence[LabelledAnswer]) -> dict[str, Any]:
    parts, features = design.fitted_features(rows)
    parts["model"] = design.regression().fit(features, [row.holds for row in rows])
    parts["aspects"] = []
    if design.aspect_strength is not None:
        for aspect in sorted({name for row in rows for name in row.aspects}):
            labels = [row.aspects.get(aspect, False) for row in rows]
            if _LEAST_ASPECT <= sum(labels) < len(labels):
                parts["aspects"].append(design.regression(design.aspect_strength).fit(features, labels))
    return parts


def _fit_probe(reader: StateReader, rows: Sequence[LabelledAnswer]) -> dict[str, Any]:
    """Return a linear classifier of mean states; its penalty is the likeliest on held-out folds, split by prompt."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def probe(strength: float) -> Any:
        # A few coordinates of a language model's states are far larger than the others and would be all it sees.
        # With equal say of both labels an answer that says nothing is not judged by what most labels are.
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=500))

    features, labels = reader.read([(row.prompt, row.answer) for row in rows]), [row.holds for row in rows]
    groups = [row.prompt.strip() for row in rows]
    folds = GroupKFold(min(_FOLDS, len(set(groups))))

    def ranked(strength: float) -> float:
        scores = cross_val_score(probe(strength), features, labels, groups=groups, cv=folds, scoring="neg_log_loss")
        return float(np.mean(scores))

    return {"probe": probe(max(_STRENGTHS, key=ranked)).fit(features, labels)}


def labelled_judge(design: Design, fit: Fit) -> Callable[..., ClassifierJudge]:
    """Return the factory of a judge that learns from one labelled file, for the registry of judges."""

    def build(
        *,
        labelled: Path | None = None,
        saved: Path | None = None,
        states: str | None = None,
        layers: list[int] | None = None,
        seed: int = 0,
        exclude_prompts: Collection[str] = (),
    ) -> ClassifierJudge:
        if labelled is not None and saved is None:
            return fit(labelled, states=states, layers=layers, seed=seed, exclude_prompts=exclude_prompts)
        if saved is not None and labelled is None:
            return load_classifier(saved, design, states=states, exclude_prompts=exclude_prompts)
        which = "neither" if saved is None else "both"
        raise ConfigError(
            f"judge {design.name!r} got {which} of the options 'labelled' (data to learn from) and 'saved' (folder "
            "of a fitted judge); expected one of them"
        )

    build.__doc__ = f"""Return the judge {design.name!r}, fitted on labelled answers or loaded from a folder.

    Args:
        labelled: answers with their labels, to learn from.
        saved: folder of a judge saved before; give one of the two.
        states: folder or hub id of a causal model whose states it looks at in place of words, in a recipe also "base";
            for `saved`, where it lies now.
        layers: numbers of decoder layers whose input it looks at; None: one in the middle.
        seed: of the split into learned and held-out prompts.
        exclude_prompts: identities of prompts it must not learn, or have learned, from.

    Raises:
        ConfigError: both or none of `labelled` and `saved`, or a model that cannot be loaded.
        DataError: the labelled data cannot be used.
        ArtifactError: the saved judge cannot be used.
    """
    build.says = lambda **_: says_of(design.judgement, probes=design.probes)  # type: ignore[attr-defined]
    return build
