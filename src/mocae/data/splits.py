"""Splits by the hash of a prompt: the same prompt lands in the same split whatever file, order or machine it is in."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence

from mocae.errors import ConfigError, DataError
from mocae.types import Example, prompt_id

__all__ = ["check_disjoint", "hash_fraction", "select"]


def hash_fraction(prompt: str) -> float:
    """Return where a prompt falls in [0, 1): its identity (`mocae.types.prompt_id`) as a uniform number.

    >>> round(hash_fraction("What is the capital of France?"), 4)
    0.0676
    """
    # The upper 53 of 64 bits: what a float holds exactly, so that 1.0 is never reached by rounding.
    return (int(prompt_id(prompt), 16) >> 11) / 2**53


def select(
    examples: Sequence[Example],
    *,
    hash_range: tuple[float, float] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> list[Example]:
    """Return the examples in a range of hashes, at most `limit` of them.

    Without `limit` the order stays. With it, the examples come in the order of a hash of seed and content, so the
    same rows are taken whatever order the file is in, and a smaller sample is the beginning of a larger one. A prompt
    is taken a second time only when every prompt has been taken once.

    Args:
        examples: at least one.
        hash_range: [low, high) of `hash_fraction`; None: all. Disjoint ranges make disjoint splits.
        limit: most examples returned; None: all. Fewer are returned when there are fewer.
        seed: of the sample; matters only with `limit`.

    Raises:
        ConfigError: a range that is not 0 <= low < high <= 1, or a limit below 1.
        DataError: no examples, or none in the range.
    """
    if not examples:
        raise DataError("select got no examples; expected at least one")
    chosen = list(examples)
    if hash_range is not None:
        low, high = hash_range
        if not 0 <= low < high <= 1:
            raise ConfigError(f"hash_range: got [{low}, {high}]; expected 0 <= low < high <= 1")
        chosen = [example for example in chosen if low <= hash_fraction(example.prompt) < high]
        if not chosen:
            raise DataError(f"none of {len(examples)} prompts has a hash in [{low}, {high}); widen hash_range")
    if limit is None:
        return chosen
    if limit < 1:
        raise ConfigError(f"limit: got {limit}; expected at least 1, or null for all")
    return _ranked(chosen, seed)[:limit]


def _ranked(examples: list[Example], seed: int) -> list[Example]:
    """Return examples by hash, the first of every prompt before the second of any."""
    by_content = sorted(examples, key=lambda example: (_digest(seed, example.id), _content(seed, example)))
    seen: Counter[str] = Counter()
    order = []
    for position, example in enumerate(by_content):
        order.append((seen[example.id], position))
        seen[example.id] += 1
    return [by_content[position] for _, position in sorted(order)]


def _content(seed: int, example: Example) -> str:
    facts = json.dumps(example.facts, sort_keys=True, ensure_ascii=False, default=str)
    return _digest(seed, "\0".join((example.prompt, example.response or "", example.kind, example.group, facts)))


def _digest(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}\0{text}".encode()).hexdigest()


def check_disjoint(splits: Mapping[str, Sequence[Example]]) -> None:
    """Check that no prompt is in two splits.

    Prompts are compared by `mocae.types.prompt_id`. Within a split a prompt may occur more than once.

    Args:
        splits: name -> examples, such as {"train": ..., "calibration": ..., "test": ...}.

    Raises:
        DataError: a prompt is in two splits; the message names both, the sources of both rows and how many
            prompts leak.
    """
    first: dict[str, tuple[str, Example]] = {}
    leaks: dict[str, tuple[str, Example, str, Example]] = {}
    for name, examples in splits.items():
        for example in examples:
            other_name, other = first.setdefault(example.id, (name, example))
            if other_name != name:
                leaks.setdefault(example.id, (other_name, other, name, example))
    if leaks:
        name_a, a, name_b, b = next(iter(leaks.values()))
        raise DataError(
            f"a prompt is in two splits, {name_a!r} ({a.source or 'no source'}) and {name_b!r} "
            f"({b.source or 'no source'}): {_shortened(a.prompt)!r}; prompts in two splits: {len(leaks)}. Expected "
            "disjoint splits; give splits of one file disjoint hash_range values, or remove the rows from one of them"
        )


def _shortened(text: str, length: int = 60) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 3] + "..."
