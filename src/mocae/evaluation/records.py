"""Samples as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mocae.errors import ArtifactError
from mocae.files import parse_json
from mocae.types import Answer, Example, Sample, Verdict

__all__ = ["read_samples", "sample_to_json", "write_samples"]


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
        "weights": dict(sample.answer.weights) if sample.answer.weights is not None else None,
        "confidence": sample.answer.confidence,
        "n_tokens": sample.answer.n_tokens,
        "verdicts": {name: asdict(verdict) for name, verdict in sample.verdicts.items()},
        "acceptable": sample.acceptable,
        "facts": dict(example.facts),
        "source": example.source,
    }


def _sample_from_json(row: dict[str, Any]) -> Sample:
    example = Example(
        prompt=row["prompt"],
        axis=row["axis"],
        probe=row["probe"],
        kind=row["kind"],
        group=row["group"],
        facts=row["facts"],
        source=row["source"],
    )
    verdicts = {name: Verdict(**verdict) for name, verdict in row["verdicts"].items()}
    answer = Answer(example, row["answer"], row["weights"], row["n_tokens"], row.get("confidence"))
    return Sample(row["system"], answer, verdicts, row["acceptable"])


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
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield _sample_from_json(parse_json(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ArtifactError(
                    f"{path}:{number}: not a sample written by mocae ({error!r}); run the recipe again"
                ) from error
