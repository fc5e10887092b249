"""Samples as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, JsonValue, NonNegativeFloat, NonNegativeInt

from mocae.files import Record, check_record, read_lines
from mocae.types import Answer, Example, Sample, Verdict

__all__ = ["Score", "VerdictRecord", "read_samples", "sample_from_json", "sample_to_json", "write_samples"]


Score = Annotated[float, Field(ge=0, le=1)] | None


class VerdictRecord(Record):
    """A verdict as lines of JSON hold it."""

    score: Score
    label: str = ""
    judge: str = ""
    raw: str = ""
    seconds: NonNegativeFloat = 0.0


class _SampleRecord(Record):
    """A line of `samples.jsonl`, as `sample_to_json` makes it."""

    system: str
    axis: str
    probe: str
    kind: str
    group: str
    prompt: str
    answer: str
    thought: str = ""
    weights: dict[str, float] | None
    confidence: Score = None
    novelty: Score = None
    n_tokens: NonNegativeInt
    verdicts: dict[str, VerdictRecord]
    acceptable: bool | None
    facts: dict[str, JsonValue]
    source: str

    def sample(self) -> Sample:
        example = Example(
            prompt=self.prompt,
            axis=self.axis,
            probe=self.probe,
            kind=self.kind,
            group=self.group,
            facts=self.facts,
            source=self.source,
        )
        verdicts = {name: Verdict(**dict(verdict)) for name, verdict in self.verdicts.items()}
        answer = Answer(example, self.answer, self.weights, self.n_tokens, self.confidence, self.thought, self.novelty)
        return Sample(self.system, answer, verdicts, self.acceptable)


def sample_to_json(sample: Sample) -> dict[str, Any]:
    """Return a sample as one JSON object: a line of `samples.jsonl`."""
    example = sample.answer.example
    return {
        "system": sample.system,
        "id": example.id,
        "axis": example.axis,
        "probe": example.probe,
        "kind": example.kind,
        "group": example.group,
        "prompt": example.prompt,
        "answer": sample.answer.text,
        "thought": sample.answer.thought,
        "weights": dict(sample.answer.weights) if sample.answer.weights is not None else None,
        "confidence": sample.answer.confidence,
        "novelty": sample.answer.novelty,
        "n_tokens": sample.answer.n_tokens,
        "verdicts": {name: asdict(verdict) for name, verdict in sample.verdicts.items()},
        "acceptable": sample.acceptable,
        "facts": dict(example.facts),
        "source": example.source,
    }


def sample_from_json(row: Any, where: str) -> Sample:
    """Return the sample that `sample_to_json` wrote; `where` is the place of the row, for messages.

    Raises:
        ArtifactError: the row is damaged.
    """
    return check_record(_SampleRecord, row, where).sample()


def write_samples(samples: Iterable[Sample], path: Path) -> None:
    """Write one line a sample."""
    with path.open("w", encoding="utf-8") as out:
        for sample in samples:
            out.write(json.dumps(sample_to_json(sample), ensure_ascii=False) + "\n")


def read_samples(path: Path) -> Iterator[Sample]:
    """Yield the samples of a file written by `write_samples`.

    Raises:
        ArtifactError: a line is damaged; the message names it.
    """
    for record in read_lines(path, _SampleRecord):
        yield record.sample()
