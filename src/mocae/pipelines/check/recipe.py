"""Whether a recipe can run: what it names, its base model, and its rows. Reads no weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mocae.config import Recipe, SourceConfig, load_recipe
from mocae.config.load import WrongValuesError
from mocae.errors import ConfigError, DataError
from mocae.judges.base import Says
from mocae.pipelines.check.names import check_names, skipped_without_extra, sources_of

if TYPE_CHECKING:
    from mocae.stages.rows import Rows

__all__ = ["Checked", "check", "load_checked", "validate"]


@dataclass(frozen=True, slots=True)
class Checked:
    """What there is to tell of a recipe without a mistake.

    Attributes:
        notes: what could not be checked, and what a reader must know.
        rows: of the sources that were read; None: of none.
        absent: keys of the sources that were not read, because their files are not here.
    """

    notes: list[str]
    rows: Rows | None
    absent: Sequence[str]


def validate(recipe: Recipe, *, where: str = "recipe") -> list[str]:
    """Return the notes of `check`, an empty list when everything was checked and fits."""
    return check(recipe, where=where).notes


def load_checked(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a file; where keys are wrong, the others are checked too.

    Raises:
        ConfigError: see `load_recipe`, and `check` where that finds more.
    """
    try:
        return load_recipe(path, overrides)
    except WrongValuesError as error:
        if isinstance(error.rest, Recipe):
            try:
                check(error.rest, where=str(path))
            except (ConfigError, DataError) as more:
                raise ConfigError(f"{error}\n{more}") from error
        raise


def check(recipe: Recipe, *, where: str = "recipe", read: Literal["here", "all", "none"] = "here") -> Checked:
    """Return what there is to tell of a recipe before it runs. Reads rows, and no weight.

    Args:
        recipe: what to check.
        where: opens every line of the error, such as the recipe's file.
        read: whose rows: of sources whose files are here, of all (those of a hub too), or of none.

    Raises:
        ConfigError: a name is not registered, an option does not exist, a file or the base model is missing, or two
            splits would read the same rows; one line a problem, with those of `DataError`.
        DataError: rows cannot be read, are in two splits or teach nothing, or no judge has a say on an axis.
    """
    unseen: dict[str, list[str]] = {}  # what to install -> the keys that cannot be checked without it
    problems, notes, says = check_names(recipe, unseen)
    if read == "all":  # what a check can do without, a run cannot
        problems += [note for note in notes if note.startswith(("base.model: not set", "data_root: not set"))]
    wrong = {key.rpartition(".")[0] for problem in problems for key in problem.partition(": ")[0].split(", ")}
    absent = [
        key
        for key, _, source in sources_of(recipe)
        if key in wrong or (read == "here" and not _is_here(recipe, source)) or read == "none"
    ]
    rows, of_rows = None, list[str]()
    if read != "none":
        with skipped_without_extra("axes", unseen):
            rows, of_rows, more = _rows(recipe, absent, says)
            notes += more
    notes += [f"{', '.join(keys)}: not checked; {reason}" for reason, keys in unseen.items()]
    if problems or of_rows:
        kind = ConfigError if problems else DataError
        raise kind("\n".join(f"{where}: {problem}" for problem in (*problems, *of_rows)))
    return Checked(notes, rows, absent)


def _rows(
    recipe: Recipe, absent: Sequence[str], says: Sequence[tuple[str, Says | None]]
) -> tuple[Rows | None, list[str], list[str]]:
    """Return the rows that are here, what is wrong with them, and what to tell of them."""
    from mocae.pipelines.check.rows import too_few, unjudged, untaught
    from mocae.stages.rows import read_rows_of  # imports torch, which reading a recipe does not need

    try:
        rows = read_rows_of(recipe, without=absent)
    except DataError as error:
        return None, str(error).splitlines(), []
    lost = {key.rpartition(".")[0] for key in absent}
    asked = {
        f"axes.{axis}.{split}": found
        for split in ("calibration", "test")
        for axis, found in getattr(rows, split).items()
        if found and f"axes.{axis}.{split}" not in lost
    }
    problems, notes = unjudged(asked, says)
    few = [note for note in too_few(rows) if note.partition(": ")[0] not in lost]
    return rows, [*untaught(recipe, rows), *problems], [*rows.notes, *notes, *few]


def _is_here(recipe: Recipe, source: SourceConfig) -> bool:
    if source.path is None:
        return source.source != "hub"
    known = source.path.is_absolute() or recipe.data_root is not None
    return known and (recipe.data_path(source.path) or source.path).exists()
