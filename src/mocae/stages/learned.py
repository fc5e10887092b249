"""Training rows made of judged answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from mocae.config import Objective
from mocae.errors import ConfigError
from mocae.types import Example, Sample

__all__ = ["accepted", "learned_rows"]


def accepted(samples: Iterable[Sample], *, acceptable: bool = True) -> list[Example]:
    """Return one training row for each different answer that was accepted, or for each that was not."""
    rows: dict[tuple[str, str], Example] = {}
    for sample in samples:
        example, text = sample.answer.example, sample.answer.text
        if sample.acceptable is acceptable and text.strip():  # None: not judged
            row = Example(example.prompt, example.axis, example.probe, text, example.kind, example.group)
            rows.setdefault((example.id, text), row)
    return list(rows.values())


def learned_rows(samples: Iterable[Sample], objective: Objective, *, pairs_per_prompt: int = 3) -> list[Example]:
    """Return what judged answers teach: accepted ones (sft), pairs (dpo), accepted and rejected ones (kto).

    Args:
        samples: judged answers; an answer that was accepted once is not rejected.
        objective: of the training.
        pairs_per_prompt: most pairs of one prompt. Each accepted answer stands against one of the rejected ones, so
            that a prompt with one of both gives one pair; a prompt without both gives none.

    Raises:
        ConfigError: there is nothing to learn.
    """
    samples = list(samples)
    wanted = accepted(samples)
    if objective == "sft":
        return _some(wanted, "no accepted answer")
    known = {(row.prompt, row.response) for row in wanted}
    others = [row for row in accepted(samples, acceptable=False) if (row.prompt, row.response) not in known]
    if objective == "kto":
        _some(wanted, "no accepted answer")
        return wanted + [replace(row, facts={"wanted": False}) for row in _some(others, "no rejected answer")]
    rejected: dict[str, list[str | None]] = {}
    for row in others:
        rejected.setdefault(row.prompt, []).append(row.response)
    pairs: list[Example] = []
    n_pairs: Counter[str] = Counter()
    for row in wanted:
        against = rejected.get(row.prompt, [])
        if against and n_pairs[row.prompt] < pairs_per_prompt:
            pairs.append(replace(row, facts={"rejected": against[n_pairs[row.prompt] % len(against)]}))
            n_pairs[row.prompt] += 1
    return _some(pairs, "no prompt with both an accepted and a rejected answer")


def _some(rows: list[Example], reason: str) -> list[Example]:
    if not rows:
        raise ConfigError(
            f"{reason} to learn from; look at outcomes.jsonl, raise routing.outcome.max_prompts, choose another "
            "objective, or leave this system out"
        )
    return rows
