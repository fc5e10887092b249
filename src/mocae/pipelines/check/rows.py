"""Whether rows can show anything: responses to learn from, judges with a say, prompts enough for an interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from mocae.axes import stored_probe
from mocae.config import AxisConfig, Recipe
from mocae.data.rows import rejected_of
from mocae.errors import DataError
from mocae.judges.base import Says
from mocae.metrics import estimate_rate
from mocae.stages.rows import Rows
from mocae.types import Example

__all__ = ["too_few", "unjudged", "untaught"]

_ENOUGH = 40
"""Prompts from which on a rate of one half is known to 15 points either way."""


def too_few(rows: Rows) -> list[str]:
    """Return a warning for each axis with so few calibration or test prompts that they can show little."""
    told = {
        "calibration": "the router learns from no more than that how often each expert is right here",
        "test": "a difference between systems that is smaller than that cannot show",
    }
    return [
        f"axes.{axis}.{split}: few {_counted(n, len(found))}: a rate of one half has the interval {_interval(n)} "
        f"(95 %), and {meaning}; {_ENOUGH} have {_interval(_ENOUGH)}"
        for split, meaning in told.items()
        for axis, found in getattr(rows, split).items()
        if 0 < (n := len({row.group or row.id for row in found})) < _ENOUGH
    ]


def _counted(n: int, prompts: int) -> str:
    return f"prompts ({n})" if n == prompts else f"topics ({n}, in {prompts} prompts)"


def _interval(n: int) -> str:
    rate = estimate_rate([i < n / 2 for i in range(n)])
    return f"{100 * (rate.low or 0):.0f} to {100 * (1 if rate.high is None else rate.high):.0f} %"


def untaught(recipe: Recipe, rows: Rows) -> list[str]:
    """Return a problem for each trained axis whose rows lack what its objective learns from."""
    return [
        f"axes.{axis.name}.train: {problem}"
        for axis in recipe.axes
        if axis.adapter is None and rows.train.get(axis.name)
        for problem in _lacks(recipe, axis, rows.train[axis.name])
    ]


def _lacks(recipe: Recipe, axis: AxisConfig, rows: Sequence[Example]) -> Iterator[str]:
    bare = [row for row in rows if not (row.response or "").strip()]
    if bare:
        yield (
            f"{len(bare)} of {len(rows)} rows have no response (first: {bare[0].source or bare[0].id}), and an expert "
            "learns from responses; name their column (options: {columns: {response: COLUMN}}), or give another source"
        )
    objective = recipe.objective(axis)
    lacking = [row for row in rows if not isinstance(rejected_of(row), str)]
    if (objective == "dpo" and lacking) or (
        objective == "kto" and len(lacking) == len(rows) and len({row.facts.get("wanted", True) for row in rows}) < 2
    ):
        yield (
            f"{len(lacking)} of {len(rows)} rows have no rejected response (first: "
            f"{lacking[0].source or lacking[0].id}), which objective {objective} needs; give a source of pairs "
            "(beavertails-pairs, hh-rlhf, or examples with facts.rejected), or objective: sft"
        )


def unjudged(
    prompts: Mapping[str, Sequence[Example]], judges: Sequence[tuple[str, Says | None]]
) -> tuple[list[str], list[str]]:
    """Return problems and notes: prompts on which no judge can give the judgements that their probe asks for.

    An axis of which no prompt can be judged is a problem, a part of one a note.

    Args:
        prompts: key of a recipe or suite -> the prompts behind it.
        judges: names, and what each can say; where one tells that only when it is made, nothing is known.
    """
    says = [said for _, said in judges if said is not None]
    problems: list[str] = []
    notes: list[str] = []
    for key, rows in prompts.items() if len(says) == len(judges) else ():
        lacking = Counter(place for row in rows if (place := (row.probe, _lacking(row, says)))[1])
        names = ", ".join(repr(name) for name in dict.fromkeys(name for name, _ in judges))
        lines = [
            f"{key}: no judge ({names}) says {' and '.join(map(repr, missing))} of {n} of its {len(rows)} prompts "
            f"(probe {probe!r})"
            for (probe, missing), n in sorted(lacking.items())
        ]
        if lacking.total() == len(rows):
            facts = sorted({name for row in rows for name in row.facts})
            remedy = f"add a judge that does (`mocae ls judges`), or facts it needs (the rows have: {_listed(facts)})"
            problems += [f"{line}; {remedy}" for line in lines]
        else:
            notes += [f"{line}, so these count in no number" for line in lines]
    return problems, notes


def _lacking(row: Example, says: Sequence[Says]) -> tuple[str, ...]:
    """Return the judgements that the probe of a prompt asks for and no judge gives."""
    probe = stored_probe(row.probe)
    said: set[str] = set()
    for judge in says:
        try:
            said.update(judge(row))
        except DataError:  # facts of another shape than the judge reads: it would have no verdict
            continue
    return tuple(name for name in probe.wants if name not in said and name not in probe.optional)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
