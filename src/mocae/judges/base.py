"""What a judge is, how one is made from a recipe, and how far it can be trusted."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from mocae.data import checked_options
from mocae.metrics import accuracy, auroc, balanced_accuracy
from mocae.registry import Registry
from mocae.types import Answer, Example, Verdict

__all__ = [
    "JUDGES",
    "Judge",
    "JudgeQuality",
    "Says",
    "build_judge",
    "in_batches",
    "judge_batches",
    "judge_each",
    "reach_all",
    "reference_of",
    "sayings",
    "says_of",
    "unscored",
    "with_correct",
]

T = TypeVar("T")
Says = Callable[[Example], Collection[str]]
"""From a prompt to the judgements that a judge can give on answers to it."""
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class JudgeQuality:
    """How well a judge agrees with labels it has not learned from; all in [0, 1], higher is better.

    Attributes:
        n: labelled answers.
        accuracy: share on which judge and label agree, a score of one half or more meaning yes.
        balanced_accuracy: mean of the share of yes-labels and of no-labels it agrees with.
        auroc: probability that a yes-label is scored above a no-label; None where only yes or no is known.
        note: which labels these are.
    """

    n: int
    accuracy: float
    balanced_accuracy: float
    auroc: float | None
    note: str

    @classmethod
    def measure(cls, scores: Sequence[float], labels: Sequence[bool], *, note: str) -> JudgeQuality:
        """Return the agreement of scores in [0, 1] with labels.

        Raises:
            DataError: no rows, lengths that differ, or labels of one kind only.

        >>> JudgeQuality.measure([0.9, 0.4, 0.6, 0.1], [True, True, False, False], note="by hand").auroc
        0.75
        """
        predictions = [score >= 0.5 for score in scores]
        return cls(
            n=len(labels),
            accuracy=accuracy(predictions, labels),
            balanced_accuracy=balanced_accuracy(predictions, labels),
            auroc=auroc(scores, labels),
            note=note,
        )


@runtime_checkable
class Judge(Protocol):
    """What turns answers into verdicts.

    Attributes:
        name: registered name.
        judgements: which judgements it can give ("unsafe", "refusal", ...).
        quality: its agreement with labels it has not learned from; None where that was not measured.

    A judge whose verdicts follow from the definition of the task, so that there is nothing to measure, says so with an
    attribute `exact` that is True. One that pays for every verdict with a request to a server says so with an attribute
    `asks_server` that is True: a run does not audit it (`mocae.judges.audit`); its method `reach()` raises JudgeError
    where the server is not there. What makes a judge may have a function
    `says(**options)` that returns a `Says`, by which a recipe is checked before anything is trained.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - described above

    @property
    def judgements(self) -> tuple[str, ...]: ...  # noqa: D102 - described above

    @property
    def quality(self) -> JudgeQuality | None: ...  # noqa: D102 - described above

    def judge(self, answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
        """Return the verdicts on each answer, in order; {} where nothing this judge can say applies.

        What fails is unscored (`Verdict.score` None, the error in `raw`), never a number and never an exception.
        """


JUDGES: Registry[Callable[..., Judge]] = Registry(
    "judge",
    entry_point_group="mocae.judges",
    builtin={
        "pocket": ("mocae.pocket.judge:PocketVerifier", "exact verifier of the pocket world"),
        "reference-overlap": (
            "mocae.judges.overlap:OverlapJudge",
            "word overlap with a reference answer; cheap, crude",
        ),
        "refusal": (
            "mocae.judges.refusal:RefusalJudge",
            "whether an answer refuses, from what its sentences do; English",
        ),
        "refusal-classifier": (
            "mocae.judges.learned.refusal_classifier:refusal_classifier",
            "whether an answer refuses, learned from your own labels",
        ),
        "refusal-signs": (
            "mocae.judges.learned.refusal_classifier:refusal_signs_judge",
            "the signs of `refusal`, weighed by your own labels",
        ),
        "classifier": (
            "mocae.judges.learned.own:classifier",
            "any judgement of your own, learned from your own labels",
        ),
        "safety-classifier": (
            "mocae.judges.learned.safety:safety_classifier",
            "unsafe or not, learned from BeaverTails labels",
        ),
        "reference-match": (
            "mocae.judges.overlap:MatchJudge",
            "whether an answer is the reference, word for word, or to an answerable question names it",
        ),
        "reference-truth": (
            "mocae.judges.reference_truth:ReferenceTruthJudge",
            "truthful and informative, by nearness to true and false reference answers",
        ),
        "abstention": (
            "mocae.judges.abstention:AbstentionJudge",
            "whether an answer admits that it has none, from words of not knowing",
        ),
        "ifeval": (
            "mocae.judges.ifeval:InstructionJudge",
            "whether an answer follows the instructions of an IFEval prompt, by the published checks",
        ),
        "openai": (
            "mocae.judges.endpoint.judge:endpoint_judge",
            "a prompt file asked of any OpenAI-compatible endpoint",
        ),
        "hub-moderation": (
            "mocae.judges.hub_moderation:ModerationJudge",
            "a Hugging Face classifier of harm, such as beaver-dam-7b",
        ),
        "hub-yes-no": (
            "mocae.judges.hub_yes_no:YesNoJudge",
            "a Hugging Face model asked True or Helpful, such as allenai's TruthfulQA judges",
        ),
        "hub-reward": (
            "mocae.judges.hub_reward:RewardJudge",
            "a Hugging Face reward model: whether an answer beats the reference",
        ),
        "guard": (
            "mocae.judges.guard:guard_judge",
            "a safety model by name (Llama Guard, WildGuard, Qwen3Guard, ShieldGemma), here or behind a server",
        ),
        "vote": ("mocae.judges.vote:voting_judge", "majority of several judges"),
    },
)


def build_judge(
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    data_root: Path | None = None,
    seed: int = 0,
    exclude_prompts: Collection[str] = (),
) -> Judge:
    """Return the judge called `name`; one that learns is fitted or loaded here.

    Args:
        name: registered name.
        options: arguments of the judge as they stand in a recipe.
        data_root: folder that relative paths among the options start from; None: the working directory.
        seed: for judges that learn, unless the options give another.
        exclude_prompts: identities (`mocae.types.prompt_id`) of the run's test prompts, which no judge may learn from.

    Raises:
        PluginError: no such judge.
        ConfigError: an option does not exist, does not fit or is missing.
        DataError: labelled data cannot be read, or too little is left of it.
        ArtifactError: a saved judge is damaged, or has learned from an excluded prompt.
    """
    factory = JUDGES.get(name)
    accepted = inspect.signature(factory).parameters
    from_run = frozenset({"exclude_prompts"}) & accepted.keys()
    checked = checked_options(factory, options or {}, what=f"judge {name!r}", given=from_run)
    for option, value in checked.items():
        if isinstance(value, Path) and data_root is not None:
            checked[option] = data_root / value
    for option, value in {"seed": seed, "data_root": data_root}.items():
        if option in accepted:
            checked.setdefault(option, value)
    if from_run:
        checked["exclude_prompts"] = exclude_prompts
    return factory(**checked)


def reach_all(judges: Iterable[Judge]) -> None:
    """Do nothing where every server that the judges ask is there.

    Raises:
        JudgeError: one is not.
    """
    for judge in judges:
        if (reach := getattr(judge, "reach", None)) is not None:
            reach()


def sayings(name: str, options: Mapping[str, Any], *, data_root: Path | None = None) -> Says | None:
    """Return which judgements the judge called `name` can give on a prompt, None where it tells that only when made.

    The arguments are those of `build_judge`.

    Raises:
        PluginError, ConfigError: no such judge, or see the judge.
    """
    factory = JUDGES.get(name)
    says = getattr(factory, "says", None)
    root = {"data_root": data_root} if "data_root" in inspect.signature(factory).parameters else {}
    return None if says is None else says(**root | dict(options))


def says_of(*judgements: str, probes: Collection[str] | None) -> Says:
    """Return the `Says` of a judge that gives the same judgements on every prompt of these probes, None: of all."""
    return lambda example: judgements if probes is None or example.probe in probes else ()


def in_batches(
    items: Sequence[T], read: Callable[[Sequence[T]], Sequence[R]], failed: Callable[[Exception], R], batch_size: int
) -> list[tuple[R, float]]:
    """Return the result for each item with the seconds it took; what `read` raises costs its own batch only.

    Args:
        items: what is read.
        read: a batch to its results, in order.
        failed: an exception to the result of each item of its batch.
        batch_size: most items of a batch.
    """
    results: list[tuple[R, float]] = []
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        started = time.perf_counter()
        try:
            made = read(batch)
        except Exception as error:  # whatever goes wrong with one batch must not cost the others theirs
            made = [failed(error)] * len(batch)
        seconds = (time.perf_counter() - started) / len(batch)
        results += [(result, seconds) for _, result in zip(batch, made, strict=True)]
    return results


def judge_batches(
    answers: Sequence[Answer],
    applies: Callable[[Answer], bool],
    read: Callable[[Sequence[Answer]], Sequence[Mapping[str, Verdict]]],
    *,
    judge: str,
    judgements: Sequence[str],
    batch_size: int,
) -> list[dict[str, Verdict]]:
    """Return the verdicts on each answer, {} for those that a judge is not for; a batch that raises is unscored.

    Args:
        answers: what is judged.
        applies: whether the judge is for an answer.
        read: a batch of answers to verdicts with score and label; name and time are added here.
        judge: name of the judge.
        judgements: what its verdicts are about.
        batch_size: answers read at once; those of like length are read together.
    """
    chosen = [i for i, answer in enumerate(answers) if applies(answer)]
    chosen.sort(key=lambda i: len(answers[i].example.prompt) + len(answers[i].text))
    judged: list[dict[str, Verdict]] = [{} for _ in answers]
    results = in_batches(
        [answers[i] for i in chosen],
        read,
        lambda error: dict.fromkeys(judgements, unscored(error, judge=judge)),
        batch_size,
    )
    for i, (verdicts, seconds) in zip(chosen, results, strict=True):
        judged[i] = {name: replace(verdict, judge=judge, seconds=seconds) for name, verdict in verdicts.items()}
    return judged


def judge_each(
    answers: Sequence[Answer], one: Callable[[Answer], Verdict | None], *, judge: str, judgement: str
) -> list[dict[str, Verdict]]:
    """Return what `one` says about each answer: {} for None, an unscored verdict where it raises."""

    def read(batch: Sequence[Answer]) -> list[dict[str, Verdict]]:
        return [{} if (verdict := one(answer)) is None else {judgement: verdict} for answer in batch]

    return judge_batches(answers, lambda _: True, read, judge=judge, judgements=(judgement,), batch_size=1)


def with_correct(win: Verdict) -> dict[str, Verdict]:
    """Return the verdicts of a comparison with a reference: the "win", and "correct" where it is above one half."""
    return {"win": win, "correct": win if win.score is None else replace(win, score=float(win.score > 0.5))}


def reference_of(answer: Answer) -> str | None:
    """Return the reference answer of an example, the first where it has several, None where it has none."""
    reference = answer.example.facts.get("reference") or answer.example.response
    if isinstance(reference, list):
        reference = reference[0] if reference else None
    return reference if isinstance(reference, str) else None


def unscored(error: Exception, *, judge: str) -> Verdict:
    """Return the verdict of a judge that failed: no score, the error as its text."""
    return Verdict(None, "unscored", judge, f"{type(error).__name__}: {error}")
