"""Any table with a prompt column."""

from __future__ import annotations

from collections.abc import Mapping

from mocae import axes
from mocae.data.rows import Row, row_source
from mocae.errors import ConfigError, unknown_name
from mocae.types import Example

__all__ = ["read_table", "table_example"]

_ROLES = ("prompt", "response", "kind", "group")


def table_example(
    row: Row, *, columns: Mapping[str, str], probe: str, facts: Mapping[str, str] | None, where: str
) -> Example:
    """Return the example of a row of a table.

    Args:
        row: of the table.
        columns: "prompt" (needed), "response", "kind", "group" -> column of the table.
        probe: what kind of test the prompts are, a name in `mocae.axes.PROBES`.
        facts: what a judge needs -> column of the table, such as {"reference": "answer"}.
        where: opens messages, such as "source 'table'".

    Raises:
        ConfigError: no prompt column, or a role that does not exist.
        PluginError: no such probe.
        DataError: a column is missing or of the wrong type; prompt and response must not be empty.
    """
    for role in columns:
        if role not in _ROLES:
            raise ConfigError(f"{where}: columns: {unknown_name('role', role, _ROLES)} Others go into `facts`")
    if "prompt" not in columns:
        raise ConfigError(f"{where}: columns: got {dict(columns)}; it should say which column is the prompt")
    return row.example(
        row.text(columns["prompt"]),
        axes.probe(probe).name,
        row.text(columns["response"]) if "response" in columns else None,
        kind=row.text(columns["kind"], may_be_empty=True) if "kind" in columns else "",
        group=row.text(columns["group"], may_be_empty=True) if "group" in columns else "",
        facts={name: row.json(column) for name, column in (facts or {}).items()},
    )


@row_source("table")
def read_table(row: Row, *, columns: Mapping[str, str], probe: str, facts: Mapping[str, str] | None = None) -> Example:
    """Return a row of any JSON, JSONL, CSV or Parquet file as an example.

    Args:
        row: of the file.
        columns: "prompt" (needed), "response", "kind", "group" -> column of the file.
        probe: what kind of test the prompts are: "task", "harmful", "benign", "question", or a registered one.
        facts: what a judge needs -> column of the file, such as {"reference": "answer"}.

    Raises:
        ConfigError: no prompt column, or a role that does not exist.
        PluginError: no such probe.
    """
    return table_example(row, columns=columns, probe=probe, facts=facts, where="source 'table'")
