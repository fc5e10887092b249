"""Any table with a prompt column."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mocae import axes
from mocae.data.rows import OnBadRow, ReadResult, Row, examples_in, needs_path
from mocae.errors import ConfigError, unknown_name
from mocae.types import Example

__all__ = ["Columns", "read_table"]

_ROLES = ("prompt", "response", "kind", "group")


class Columns:
    """How columns of a table become an example; calling it converts a row.

    Args:
        axis: whose rows these are.
        probe: what kind of test the prompts are, a name in `mocae.axes.PROBES`.
        columns: "prompt" (needed), "response", "kind", "group" -> column of the table.
        facts: what a judge needs -> column of the table, such as {"reference": "answer"}.
        where: opens messages, such as "source 'table'".

    Raises:
        ConfigError: no prompt column, or a role that does not exist.
        PluginError: no such probe.
    """

    def __init__(
        self, *, axis: str, probe: str, columns: Mapping[str, str], facts: Mapping[str, str] | None, where: str
    ) -> None:
        for role in columns:
            if role not in _ROLES:
                raise ConfigError(f"{where}: columns: {unknown_name('role', role, _ROLES)} Others go into `facts`")
        if "prompt" not in columns:
            raise ConfigError(f"{where}: columns: got {dict(columns)}; it should say which column is the prompt")
        self._axis = axis
        self._probe = axes.probe(probe).name
        self._columns = dict(columns)
        self._facts = dict(facts or {})

    def __call__(self, row: Row) -> Example:
        """Return the example of one row.

        Raises:
            DataError: a column is missing or of the wrong type; prompt and response must not be empty.
        """
        columns = self._columns
        return Example(
            row.text(columns["prompt"]),
            axis=self._axis,
            probe=self._probe,
            response=row.text(columns["response"]) if "response" in columns else None,
            kind=row.text(columns["kind"], may_be_empty=True) if "kind" in columns else "",
            group=row.text(columns["group"], may_be_empty=True) if "group" in columns else "",
            facts={name: row.json(column) for name, column in self._facts.items()},
            source=row.source,
        )


def read_table(
    path: Path | None,
    *,
    axis: str,
    columns: Mapping[str, str],
    probe: str,
    facts: Mapping[str, str] | None = None,
    on_bad_row: OnBadRow = "error",
) -> ReadResult:
    """Return the rows of any JSON, JSONL, CSV or Parquet file.

    Args:
        path: the file.
        axis: whose rows these are.
        columns: "prompt" (needed), "response", "kind", "group" -> column of the file.
        probe: what kind of test the prompts are: "task", "harmful", "benign", "question", or a registered one.
        facts: what a judge needs -> column of the file, such as {"reference": "answer"}.
        on_bad_row: whether a bad row stops the reading or is counted and left out.

    Raises:
        ConfigError: no path, no prompt column, or a role that does not exist.
        PluginError: no such probe.
        DataError: see `mocae.data.rows.examples_in`.
    """
    convert = Columns(axis=axis, probe=probe, columns=columns, facts=facts, where="source 'table'")
    return examples_in(needs_path("table", path), convert, on_bad_row=on_bad_row)
