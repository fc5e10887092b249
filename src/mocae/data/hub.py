"""Data sets of the Hugging Face hub, or a folder laid out like one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mocae.data.rows import OnBadRow, ReadResult, Row, examples_from
from mocae.data.table import table_example
from mocae.errors import ConfigError, DataError
from mocae.types import Example

__all__ = ["read_hub"]


def read_hub(
    path: Path | None,
    *,
    axis: str,
    name: str,
    split: str,
    columns: Mapping[str, str],
    probe: str,
    subset: str | None = None,
    revision: str | None = None,
    facts: Mapping[str, str] | None = None,
    on_bad_row: OnBadRow = "error",
) -> ReadResult:
    """Return the rows of one split of a data set.

    Args:
        path: not used; must be None.
        axis: whose rows these are.
        name: hub id, such as "tatsu-lab/alpaca", or a local folder.
        split: which split, such as "train" or "train[:100]".
        columns: "prompt" (needed), "response", "kind", "group" -> column of the data set.
        probe: what kind of test the prompts are: "task", "harmful", "benign", "question", or a registered one.
        subset: configuration of the data set, where it has several.
        revision: branch, tag or commit on the hub; a commit makes a run repeatable.
        facts: what a judge needs -> column of the data set, such as {"reference": "answer"}.
        on_bad_row: whether a bad row stops the reading or is counted and left out.

    Raises:
        ConfigError: a path, no prompt column, a role that does not exist, or `datasets` is not installed.
        PluginError: no such probe.
        DataError: the data set or split cannot be loaded; see also `mocae.data.rows.examples_from`.
    """
    if path is not None:
        raise ConfigError(f"source 'hub' reads no file, but path is {path}; give options.name and remove `path`")
    what = f"{name} ({split})"
    loaded = _load(name, split=split, subset=subset, revision=revision)
    rows: Iterator[Row] = (
        Row(values, f"{what}: row {number}", f"{name}:{split}:row {number}", axis)
        for number, values in enumerate(loaded, start=1)
    )

    def convert(row: Row) -> Example:
        return table_example(row, columns=columns, probe=probe, facts=facts, where="source 'hub'")

    return examples_from(rows, convert, what=what, on_bad_row=on_bad_row)


def _load(name: str, *, split: str, subset: str | None, revision: str | None) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError("source 'hub' needs the package datasets: pip install 'mocae[train]'") from error
    try:
        return datasets.load_dataset(name, subset, split=split, revision=revision)
    except Exception as error:  # a dozen libraries below raise here: network, HTTP, Arrow, file formats
        reason = str(error).strip().split("\n")[0]
        raise DataError(
            f"{name}: split {split!r} does not load ({type(error).__name__}: {reason}); expected a hub id or folder "
            "that datasets.load_dataset reads"
        ) from error
