"""From adapters that are there to an artifact: no training, only features, outcomes and a router."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mocae.config import Recipe, parse_recipe
from mocae.data import OnBadRow, read_rows
from mocae.errors import ConfigError, DataError, unknown_name

__all__ = ["BUILD", "build_recipe", "parse_judge", "parse_named"]

BUILD = "build"
"""Name of every recipe of a build, so it does not tell one from another."""

_FEWEST = 8
"""Calibration prompts an expert needs at least, so that some are left to test on."""


def build_recipe(
    *,
    base: str,
    experts: Mapping[str, str],
    calibration: Path,
    judges: Sequence[Mapping[str, Any]],
    prompt_format: str = "plain",
    max_new_tokens: int = 64,
    held_out: float = 0.25,
    seed: int = 0,
    on_bad_row: OnBadRow = "error",
    settings: Sequence[str] = (),
) -> Recipe:
    """Return the recipe of a build: a run whose experts are adapters brought along.

    Prompts of the calibration file are split by their hash: the router is fitted on one part, and the report compares
    base model, single experts, uniform mixture, router and oracle on the other.

    Args:
        base: Hub id, folder or registered name of the base model.
        experts: name -> PEFT LoRA folder or Hub id, in the order of weights.
        calibration: rows of the source `examples`: prompt, axis (an expert's name), probe, and facts for the judges.
        judges: each with `judge` and `options`, as in a recipe.
        prompt_format: registered name.
        max_new_tokens: longest answer.
        held_out: share of the prompts to test on, in (0, 1).
        seed: of everything that is drawn.
        on_bad_row: what a row of the file that cannot be read, or is too long, does: stop, or be counted and left out.
        settings: as after `--set`.

    Raises:
        ConfigError: no experts, no judge, or a setting that does not fit.
        DataError: the file cannot be read, names an expert that is not there, or has too few prompts of one.
    """
    if not experts:
        raise ConfigError("build: no --expert; give one at least, as in --expert honesty=path/to/adapter")
    if not judges:
        raise ConfigError("build: no --judge; name what decides which answers are acceptable, see `mocae ls judges`")
    if not 0 < held_out < 1:
        raise ConfigError(f"--held-out {held_out}: give a share above 0 and under 1, as in 0.25")
    file = calibration.expanduser().resolve()
    _check_rows(file, experts, on_bad_row)
    rows = {"source": "examples", "path": str(file), "on_bad_row": on_bad_row}
    values: dict[str, Any] = {
        "name": BUILD,
        "seed": seed,
        "base": {"model": base},
        "prompt_format": prompt_format,
        "axes": [
            {
                "name": name,
                "injection": "",
                "adapter": adapter,
                "calibration": {**rows, "hash_range": [0.0, 1 - held_out]},
                "test": {**rows, "hash_range": [1 - held_out, 1.0]},
            }
            for name, adapter in experts.items()
        ],
        "generation": {"max_new_tokens": max_new_tokens},
        "judges": [dict(judge) for judge in judges],
        "systems": ["base", *(f"expert:{name}" for name in experts), "uniform", "alignx", "oracle"],
        "notes": ["experts were brought along, not trained by this run"],
    }
    return parse_recipe(values, settings, where=BUILD)


def parse_judge(text: str) -> dict[str, Any]:
    """Return a judge given as `name` or `name:{"option": value}`.

    >>> parse_judge('reference-overlap:{"threshold": 0.4}')
    {'judge': 'reference-overlap', 'options': {'threshold': 0.4}}

    Raises:
        ConfigError: the options are no JSON object.
    """
    name, options = parse_named(text, what="--judge")
    return {"judge": name, "options": options}


def parse_named(text: str, *, what: str) -> tuple[str, dict[str, Any]]:
    """Return name and options of a plug-in given as `name` or `name:{"option": value}`.

    Args:
        text: as given.
        what: where it stands, for messages.

    Raises:
        ConfigError: no name, or the options are no JSON object.
    """
    name, colon, options = text.partition(":")
    try:
        parsed = json.loads(options) if colon else {}
    except ValueError as error:
        raise ConfigError(f"{what} {text!r}: the options are not JSON ({error}); write name:{{...}}") from error
    if not name or not isinstance(parsed, dict):
        raise ConfigError(f"{what} {text!r}: give a name, or name:{{...}} with options as a JSON object")
    return name, parsed


def _check_rows(path: Path, experts: Mapping[str, str], on_bad_row: OnBadRow) -> None:
    """Refuse rows of an axis nobody is expert in, which the source would leave out in silence, and experts without."""
    if not path.is_file():
        raise DataError(f"--calibration {path}: no such file; give rows with prompt, axis, probe and facts")
    found: Counter[str] = Counter()
    for number, row in read_rows(path, skipped=[] if on_bad_row == "skip" else None):
        axis = str(row.get("axis"))
        if axis not in experts:
            raise DataError(f"{path}: row {number}: field 'axis': {unknown_name('expert', axis, experts)}")
        found[axis] += 1
    for name in experts:
        if found[name] < _FEWEST:
            raise DataError(f"{path}: {found[name]} rows of axis {name!r}; the router needs at least {_FEWEST} of each")
