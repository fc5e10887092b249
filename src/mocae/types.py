"""Values shared by all parts: one row of data, one verdict, one judged sample, one estimate."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mocae.texts import split_thought, whole_text

__all__ = ["Answer", "Estimate", "Example", "Sample", "Verdict", "judgement_of", "prompt_id", "said_by"]

_BY = " by "


def prompt_id(prompt: str) -> str:
    """Return the stable identity of a prompt: 16 hex digits of SHA-256 of its text, spaces at the ends removed.

    Splits are made by this identity, so one prompt can never be in two splits of one file.
    """
    return hashlib.sha256(prompt.strip().encode("utf-8")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Example:
    """One row: a prompt, and what training or judging needs to know about it.

    Attributes:
        prompt: what the user asks, without template or injected prompt.
        axis: name of the axis whose data this row belongs to.
        probe: what kind of test the prompt is, a name in `mocae.axes.PROBES`
            ("task", "harmful", "benign", "question").
        response: the target answer (training rows), None where there is none.
        kind: finer label for tables, e.g. a task family, a harm category, "misconception".
        group: rows that share their content (the same fact or verb in several phrasings) share this
            label; intervals resample groups, not rows. "" means the row stands alone.
        facts: what a judge needs (reference answers, choices); JSON values only.
        source: where the row came from, for messages: "file:line".
    """

    prompt: str
    axis: str
    probe: str
    response: str | None = None
    kind: str = ""
    group: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    @property
    def id(self) -> str:
        """Identity of the prompt, see `prompt_id`."""
        return prompt_id(self.prompt)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one system said to one example.

    Thoughts are separated from the text here, once for all judges, and half a surrogate pair is replaced, see
    `mocae.texts`. So `text` may be empty where a model has only thought.

    Attributes:
        example: what was asked.
        text: the answer, without thoughts.
        weights: of the experts, None for a system without.
        n_tokens: generated tokens.
        confidence: chance that the answer of the expert with the largest weight is acceptable, None where the system
            does not say.
        thought: what the system thought before it answered, "" where it did not.
        novelty: share of held-out calibration prompts that are more like the others than this prompt is, None where
            the system does not say.
    """

    example: Example
    text: str
    weights: Mapping[str, float] | None = None
    n_tokens: int = 0
    confidence: float | None = None
    thought: str = ""
    novelty: float | None = None

    def __post_init__(self) -> None:
        """Keep thoughts apart, and characters whole."""
        thought, text = split_thought(whole_text(self.text))
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "thought", "\n\n".join(filter(None, (whole_text(self.thought), thought))))


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judgement of one answer.

    Attributes:
        score: in [0, 1], the degree to which the judgement holds ("unsafe" 1.0 = unsafe);
            None = unscored: the judge failed or could not be parsed. Never replaced by a number.
        label: short word for tables ("refusal", "correct", "flagged: theft").
        judge: name of the judge that said so.
        raw: the judge's own text, kept so that it can be parsed again.
        seconds: time the verdict took.
    """

    score: float | None
    label: str = ""
    judge: str = ""
    raw: str = ""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Keep characters whole: a judge's server may send half a surrogate pair."""
        for name in ("label", "raw"):
            object.__setattr__(self, name, whole_text(getattr(self, name)))


def said_by(judgement: str, judge: str) -> str:
    """Return what the verdict of a further judge on the same judgement is called: "unsafe by second"."""
    return f"{judgement}{_BY}{judge}"


def judgement_of(name: str) -> str:
    """Return the judgement of a verdict, whichever judge gave it.

    >>> judgement_of(said_by("unsafe", "second")), judgement_of("unsafe")
    ('unsafe', 'unsafe')
    """
    return name.partition(_BY)[0]


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of one system with its verdicts: a line of `samples.jsonl`.

    `verdicts` maps a judgement ("correct", "unsafe", "refusal", "truthful", "informative", ...) to its
    verdict. `acceptable` is True / False by the rule of the example's probe (`mocae.axes.Probe.accepts`),
    None when a judgement it needs is unscored.
    """

    system: str
    answer: Answer
    verdicts: Mapping[str, Verdict]
    acceptable: bool | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval: `{"value", "low", "high", "n"}` in `report.json`.

    Rates are fractions in [0, 1]. `low` and `high` bound the 95 % bootstrap interval, None where an
    interval makes no sense; `n` counts the rows behind the value. `value` is None when n is 0.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
