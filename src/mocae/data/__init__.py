"""Rows from files and the hub, as examples: sources, and splits by the hash of the prompt.

A source is a function `read(path, *, axis, on_bad_row="error", **options) -> ReadResult`; its annotated keyword
arguments are its options. Installed packages add their own under the entry point group `mocae.sources`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mocae.data.options import checked_options, option_lines
from mocae.data.readers import BadRowError, read_rows
from mocae.data.rows import OnBadRow, ReadResult
from mocae.data.splits import check_disjoint, hash_fraction, select
from mocae.errors import DataError
from mocae.registry import Registry

__all__ = [
    "SOURCES",
    "BadRowError",
    "OnBadRow",
    "ReadResult",
    "Source",
    "check_disjoint",
    "checked_options",
    "hash_fraction",
    "option_lines",
    "read_rows",
    "read_source",
    "select",
]


@runtime_checkable
class Source(Protocol):
    """What reads examples. Options are further keyword arguments of the function, with types."""

    def __call__(self, path: Path | None, *, axis: str, on_bad_row: OnBadRow = "error") -> ReadResult:
        """Return what was read.

        Raises:
            DataError: a file or row is wrong.
            ConfigError: path or options are wrong.
        """


SOURCES: Registry[Source] = Registry(
    "source",
    entry_point_group="mocae.sources",
    builtin={
        "pocket": ("mocae.pocket.source:read_pocket", "the generated three-axis world that ships with the package"),
        "alpaca": ("mocae.data.alpaca:read_alpaca", "Alpaca: instruction, input, output"),
        "beavertails": ("mocae.data.beavertails:read_beavertails", "BeaverTails rows with 14 labels of harm"),
        "beavertails-pairs": ("mocae.data.beavertails:read_beavertails_pairs", "prompt with safe and unsafe response"),
        "beavertails-prompts": ("mocae.data.beavertails:read_beavertails_prompts", "BeaverTails evaluation prompts"),
        "truthfulqa": ("mocae.data.truthfulqa:read_truthfulqa", "TruthfulQA questions with reference answers"),
        "truthfulqa-mc": ("mocae.data.truthfulqa:read_truthfulqa_mc", "TruthfulQA multiple choice"),
        "xstest": ("mocae.data.xstest:read_xstest", "XSTest: prompts that look harmful, and ones that are"),
        "selfaware": ("mocae.data.honesty:read_selfaware", "SelfAware: questions with and without an answer"),
        "honeset": ("mocae.data.honesty:read_honeset", "HoneSet: requests beyond the limits of a language model"),
        "ifeval": ("mocae.data.ifeval:read_ifeval", "IFEval: prompts whose instructions a program checks"),
        "examples": ("mocae.data.examples:read_examples", "rows with axis, probe and facts: JSONL as mocae names them"),
        "hh-rlhf": ("mocae.data.hh_rlhf:read_hh_rlhf", "HH-RLHF: conversations with a chosen and a rejected answer"),
        "messages": ("mocae.data.messages:read_messages", "chat rows: messages (ChatML) or conversations (ShareGPT)"),
        "table": ("mocae.data.table:read_table", "any JSON, JSONL, CSV or Parquet file with a prompt column"),
        "hub": ("mocae.data.hub:read_hub", "a data set of the Hugging Face hub"),
    },
)


def read_source(
    name: str,
    path: Path | None,
    *,
    axis: str,
    on_bad_row: OnBadRow = "error",
    options: Mapping[str, Any] | None = None,
) -> ReadResult:
    """Return what the source called `name` reads, its options checked first.

    Args:
        name: registered name.
        path: file, None for a source without one.
        axis: whose rows these are.
        on_bad_row: whether a bad row stops the reading or is counted and left out.
        options: further arguments of the source, as they stand in a recipe.

    Raises:
        PluginError: no such source.
        ConfigError: an option does not exist, does not fit or is missing; or the source wants another path.
        DataError: a file or row is wrong.
    """
    source = SOURCES.get(name)
    from_run = frozenset({"path", "axis", "on_bad_row"})
    checked = checked_options(source, options or {}, what=f"source {name!r}", given=from_run)
    try:
        return source(path, axis=axis, on_bad_row=on_bad_row, **checked)
    except BadRowError as error:
        message = str(error).rstrip(".")
        raise DataError(f"{message}; on_bad_row: skip in this source leaves such rows out and counts them") from error
