"""The judges of a recipe, trained first where they need it."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mocae.config import JudgeConfig, Recipe
from mocae.judges import JUDGES, Judge, build_judge
from mocae.pipelines.rows import Rows
from mocae.pipelines.store import key_of
from mocae.progress import say

__all__ = ["Judges", "make_judges"]


@dataclass(frozen=True, slots=True)
class Judges:
    """The judges, and a key of everything their verdicts depend on."""

    judges: Sequence[Judge]
    key: str


def make_judges(recipe: Recipe, rows: Rows) -> Judges:
    """Return the judges in the recipe's order; those that learn never see prompts of the test and calibration splits.

    A judge that learns from a file an axis is trained on does not see that axis's training prompts either.

    Raises:
        PluginError, ConfigError, DataError, ArtifactError: see `mocae.judges.build_judge`.
    """
    # Calibration too: a judge that knows those answers would teach the router a confidence it does not have on others.
    asked = {row.id for row in (*rows.all_of("test"), *rows.all_of("calibration"))}
    judges, excluded = [], []
    for config in recipe.judges:
        say(f"judge {config.judge}")
        excluded.append(sorted(asked | _trained_on(recipe, rows, config)))
        judges.append(
            build_judge(
                config.judge,
                config.options,
                data_root=recipe.data_root,
                seed=recipe.seed,
                exclude_prompts=excluded[-1],
            )
        )
    inputs = {
        "judges": [config.model_dump() for config in recipe.judges],
        "files": list(_file_digests(recipe)),
        "seed": recipe.seed,
        "excluded": [ids if _learns(config) else [] for config, ids in zip(recipe.judges, excluded, strict=True)],
    }
    return Judges(judges, key_of(inputs))


def _trained_on(recipe: Recipe, rows: Rows, config: JudgeConfig) -> set[str]:
    """Return the training prompts of every axis that is trained on a file the judge learns from."""
    files = {value for value in config.options.values() if isinstance(value, str)}
    axes = [axis.name for axis in recipe.axes if any(str(source.path) in files for source in axis.train)]
    return {row.id for axis in axes for row in rows.train[axis]}


def _learns(config: JudgeConfig) -> bool:
    """Return whether a judge is kept from prompts; one that is not says the same whatever is tested."""
    return "exclude_prompts" in inspect.signature(JUDGES.get(config.judge)).parameters


def _file_digests(recipe: Recipe) -> Iterator[str]:
    """Yield the SHA-256 of every file and folder the options of judges name: other labels make other verdicts."""
    named = (value for config in recipe.judges for value in config.options.values() if isinstance(value, str))
    for path in ((recipe.data_root or Path()) / value for value in named):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                with file.open("rb") as content:
                    yield hashlib.file_digest(content, "sha256").hexdigest()
