"""All rows of a recipe, read, sampled and checked for leaks."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from mocae.axes import probe
from mocae.config import Recipe, SourceConfig
from mocae.data import SOURCES, check_disjoint, read_source, select
from mocae.errors import ConfigError, DataError, PluginError
from mocae.evaluation import too_long
from mocae.models import LoadedBase
from mocae.progress import say
from mocae.prompts import FORMATS
from mocae.types import Example

__all__ = ["Rows", "long_prompts", "read_rows_of", "without_long"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows by split and axis.

    Attributes:
        train: axis -> rows.
        calibration: axis -> rows, each prompt once; axes without are left out.
        test: axis -> rows, each prompt once.
        n_skipped: bad rows left out.
        notes: what a reader of the recipe must know of them.
    """

    train: Mapping[str, Sequence[Example]]
    calibration: Mapping[str, Sequence[Example]]
    test: Mapping[str, Sequence[Example]]
    n_skipped: int
    notes: Sequence[str] = ()

    def all_of(self, split: str) -> list[Example]:
        """Return the rows of a split, axis after axis."""
        by_axis: Mapping[str, Sequence[Example]] = getattr(self, split)
        return [row for rows in by_axis.values() for row in rows]

    def verdict_ids(self, limit: int | None, *, seed: int) -> frozenset[str]:
        """Return the calibration prompts whose verdicts may be used, at most `limit`, None: all.

        A smaller draw is part of a larger one, see `in_turn`.
        """
        return frozenset(self.in_turn(seed=seed)[:limit])

    def in_turn(self, *, seed: int) -> list[str]:
        """Return the calibration prompts, spread over the axes and drawn by hash within each."""
        ranked = [
            [row.id for row in select(rows, limit=len(rows), seed=seed)] for rows in self.calibration.values() if rows
        ]
        return [ids[i] for i in range(max(map(len, ranked), default=0)) for ids in ranked if i < len(ids)]

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of rows by split and axis."""
        splits = ("train", "calibration", "test")
        return {split: {axis: len(rows) for axis, rows in getattr(self, split).items()} for split in splits}


def read_rows_of(recipe: Recipe, *, without: Collection[str] = ()) -> Rows:
    """Return every row the recipe names, with every note on them.

    Args:
        recipe: what names the sources.
        without: keys of sources that are not read, as "axes.honesty.test.0".

    Raises:
        DataError: a source cannot be read or leaves no row, a prompt is in two splits, or two axes are tested (or
            calibrated) with the same prompt; one line a problem.
    """
    reading = _Reading(recipe, without)
    train = {axis.name: reading.rows(axis.name, "train", axis.train) for axis in recipe.axes}
    calibration = {
        axis.name: _once(reading.rows(axis.name, "calibration", axis.calibration))
        for axis in recipe.axes
        if axis.calibration
    }
    test = {axis.name: _once(reading.rows(axis.name, "test", axis.test)) for axis in recipe.axes}
    rows = Rows(train, calibration, test, reading.n_skipped, tuple(reading.notes))
    wrong = [f"{key}: {line}" for line, key in reading.problems.items()]
    problems = [*wrong, *_leaks(rows), *_shared(rows)]
    if problems:
        raise DataError("\n".join(problems))
    return rows


class _Reading:
    """Reads the sources of a recipe and keeps what is wrong with each."""

    def __init__(self, recipe: Recipe, without: Collection[str]) -> None:
        self._recipe, self._without = recipe, without
        self.n_skipped = 0
        self.problems: dict[str, str] = {}  # what is wrong with a file -> the first key that names it
        self.notes: list[str] = []

    def rows(self, axis: str, split: str, sources: Sequence[SourceConfig]) -> list[Example]:
        """Return the rows of one split of an axis."""
        rows: list[Example] = []
        for index, source in enumerate(sources):
            key = f"axes.{axis}.{split}.{index}"
            if key in self._without:
                continue
            try:
                rows += self._chosen(key, axis, source)
            except (ConfigError, DataError, PluginError) as error:
                for line in str(error).splitlines():
                    self.problems.setdefault(line, key)
        return rows

    def _chosen(self, key: str, axis: str, source: SourceConfig) -> list[Example]:
        # A source that draws its rows draws others for another seed, unless the recipe fixes it.
        drawn = "seed" in inspect.signature(SOURCES.get(source.source)).parameters
        options = {"seed": self._recipe.seed, **source.options} if drawn else source.options
        path = self._recipe.data_path(source.path)
        result = read_source(source.source, path, axis=axis, on_bad_row=source.on_bad_row, options=options)
        self.n_skipped += result.n_skipped
        chosen = select(result.examples, hash_range=source.hash_range, limit=source.limit, seed=self._recipe.seed)
        if ".train." not in key:
            for row in chosen:
                probe(row.probe)
        self.notes += source.limit_note(key, len(chosen))
        return chosen


def long_prompts(recipe: Recipe, base: LoadedBase, rows: Sequence[Example]) -> dict[str, int]:
    """Return id -> tokens of the prompts that, behind the longest injected prompt, fill the base model's context."""
    injection = max((axis.injection for axis in recipe.axes), key=len)
    return too_long(base, rows, prompt_format=FORMATS.get(recipe.prompt_format), injection=injection)


def without_long(rows: Rows, recipe: Recipe, base: LoadedBase) -> Rows:
    """Return the rows without calibration and test prompts that leave no room for an answer in the model's context.

    They are bad rows: what `on_bad_row` of their sources says is done. Training rows are cut where they are trained on.

    Raises:
        DataError: there is one, and a source of its axis does not say "skip"; or an axis has no other.
    """
    context, n_skipped = base.description.context, 0
    kept: dict[str, dict[str, Sequence[Example]]] = {}
    for split in ("calibration", "test"):
        kept[split] = {}
        for axis, found in getattr(rows, split).items():
            long = long_prompts(recipe, base, found)
            config = next(a for a in recipe.axes if a.name == axis)
            if long and any(source.on_bad_row != "skip" for source in getattr(config, split)):
                row = next(row for row in found if row.id in long)
                raise DataError(
                    f"axes.{axis}.{split}: {row.source or row.id}: the prompt has {long[row.id]} tokens with what "
                    f"stands around it, the base model's context is {context}; {len(long)} of {len(found)} prompts are "
                    "too long. Shorten or remove them; on_bad_row: skip leaves them out and counts them"
                )
            kept[split][axis] = [row for row in found if row.id not in long]
            if found and not kept[split][axis]:
                raise DataError(f"axes.{axis}.{split}: no prompt fits the base model's context of {context} tokens")
            n_skipped += len(found) - len(kept[split][axis])
    if n_skipped:
        say(f"{n_skipped} prompts longer than the base model's context of {context} tokens are left out")
    return replace(rows, calibration=kept["calibration"], test=kept["test"], n_skipped=rows.n_skipped + n_skipped)


def _leaks(rows: Rows) -> list[str]:
    """Return what is wrong where a prompt is in two splits."""
    try:
        check_disjoint({split: rows.all_of(split) for split in ("train", "calibration", "test")})
    except DataError as error:
        return [str(error)]
    return []


def _shared(rows: Rows) -> list[str]:
    """Return a line for each split in which two axes have a prompt in common: an expert's answer is found by prompt."""
    problems = []
    for split in ("calibration", "test"):
        first: dict[str, Example] = {}
        pairs = ((first.setdefault(row.id, row), row) for row in rows.all_of(split))
        if pair := next((pair for pair in pairs if pair[0].axis != pair[1].axis), None):
            (one, other) = pair
            problems.append(
                f"split {split!r}: axes {one.axis!r} ({one.source or 'no source'}) and {other.axis!r} "
                f"({other.source or 'no source'}) have a prompt in common; remove it from one of them"
            )
    return problems


def _once(rows: Sequence[Example]) -> list[Example]:
    """Return the first row of each prompt: a question asked twice is not two questions."""
    first: dict[str, Example] = {}
    for row in rows:
        first.setdefault(row.id, row)
    return list(first.values())
