"""The pocket world as a data source of recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

from mocae.data import ReadResult
from mocae.errors import ConfigError
from mocae.pocket.world import SPLITS, Split, axis_rows, probe_rows

__all__ = ["read_pocket"]


def read_pocket(
    path: Path | None,
    *,
    axis: str,
    on_bad_row: Literal["error", "skip"] = "error",
    split: str = "train",
    n: int = 900,
    conflict: float = 1.0,
    other_share: float = 0.35,
    seed: int = 0,
) -> ReadResult:
    """Return rows of the pocket world: training rows with responses, or prompts of the other two splits.

    Args:
        path: not used; must be None.
        axis: "helpfulness", "harmlessness" or "honesty".
        on_bad_row: not used; generated rows are never bad.
        split: "train", "calibration" or "test".
        n: rows.
        conflict: how one-sided training rows are, 0 to 1 (`mocae.pocket.world.axis_rows`).
        other_share: share of training rows whose prompt belongs to another axis.
        seed: of the drawing.

    Raises:
        ConfigError: a path, an unknown axis or split, or more rows than exist.
    """
    if path is not None:
        raise ConfigError(f"source 'pocket' is generated and reads no file, but path is {path}; remove `path`")
    if split not in SPLITS:
        raise ConfigError(f"source 'pocket': split is {split!r}; accepted: {', '.join(map(repr, SPLITS))}")
    if split == "train":
        rows = axis_rows(axis, n=n, conflict=conflict, other_share=other_share, seed=seed)
    else:
        rows = probe_rows(axis, cast(Split, split), n=n, seed=seed)
    return ReadResult(examples=rows, n_skipped=0, skipped=[])
