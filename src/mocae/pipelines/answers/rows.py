"""Files of prompts and responses made elsewhere, whatever their columns are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mocae.axes import PROBES, probe
from mocae.data import OnBadRow, read_rows
from mocae.data.readers import place
from mocae.data.rows import Row
from mocae.errors import DataError, unknown_name
from mocae.pipelines.scoring import keep_rows
from mocae.types import Answer, Example

__all__ = ["UNTOLD", "AnswerRows", "Given", "read_answers"]

ROLES: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "instruction", "question"),
    "response": ("response", "answer", "completion", "output"),
    "system": ("system", "model", "generator"),
    "axis": ("axis",),
    "probe": ("probe",),
    "kind": ("kind",),
    "group": ("group",),
}
"""What a row can say -> the columns it is looked for in, where no other one is named."""
UNTOLD = "answer"
"""Probe of an answer of whose prompt nobody has told what kind it is: nothing says which answer is wanted."""


@dataclass(frozen=True, slots=True)
class Given:
    """An answer and the system that gave it."""

    system: str
    answer: Answer


@dataclass(slots=True)
class AnswerRows:
    """The answers of a file, in its order.

    Attributes:
        answers: at least one.
        columns: what is read -> column of the file.
        unread: columns of the first row that nothing was read from.
        n_silent: rows without a response (null or no such cell): no answer, left out.
        n_skipped: rows that cannot be used, left out.
        n_unknown: rows whose prompt is not among the known ones, left out.
    """

    answers: list[Given]
    columns: dict[str, str]
    unread: list[str] = field(default_factory=list)
    n_silent: int = 0
    n_skipped: int = 0
    n_unknown: int = 0


def read_answers(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    where: Sequence[str] = (),
    known: Mapping[str, Example] | None = None,
    kind_of_prompt: str | None = None,
    on_bad_row: OnBadRow = "error",
) -> AnswerRows:
    """Return the answers of a file.

    Args:
        path: JSON, JSONL, CSV or Parquet, also compressed; lines of our `samples.jsonl` are read as they are.
        columns: name in `ROLES` -> column of the file; any other name is a fact that a judge needs ("reference").
        where: filters, "column=pattern" or "column!=pattern".
        known: prompts by identity, which say of themselves what kind they are and what a judge needs; rows with other
            prompts are left out. None: rows say it themselves, or nobody does.
        kind_of_prompt: probe of all prompts.
        on_bad_row: whether a row that cannot be used stops the reading or is counted and left out.

    Raises:
        DataError: the file cannot be read, a column is missing, a row cannot be used, or no answer is left.
        ConfigError: a filter that is none.
        PluginError: no such probe.
    """
    skipped: list[str] | None = [] if on_bad_row == "skip" else None
    rows = keep_rows(list(read_rows(path, skipped=skipped)), where, path)
    if not rows:
        raise DataError(f"{path}: the file has no rows; at least one answer is needed")
    if kind_of_prompt is not None:
        probe(kind_of_prompt)
    chosen = _columns(path, columns or {}, rows[0][1])
    made = AnswerRows([], chosen, [name for name in rows[0][1] if name not in {*chosen.values(), "facts", "id"}])
    for number, values in rows:
        row = Row(values, f"{path}: {place(path, number)}", f"{path.name}:{number}")
        try:
            if values.get(chosen["response"]) is None:
                made.n_silent += 1
                continue
            example = _example(row, chosen, kind_of_prompt)
            given = Given(
                (row.optional(chosen["system"]) if "system" in chosen else "") or path.name,
                Answer(example, row.text(chosen["response"], may_be_empty=True)),
            )
        except DataError as error:
            if skipped is None:
                raise DataError(f"{error}; --on-bad-row skip leaves such rows out and counts them") from error
            skipped.append(str(error))
            continue
        if known is not None and example.id not in known:
            made.n_unknown += 1
            continue
        made.answers.append(given if known is None else _with_prompt(given, known[example.id]))
    made.n_skipped = len(skipped or ())
    if not made.answers:
        raise DataError(
            f"{path}: no answer is left of {len(rows)} rows: {made.n_silent} without response, {made.n_skipped} that "
            f"cannot be used, {made.n_unknown} whose prompt is not among those asked; --probe NAME says of all prompts "
            "what kind they are, in place of looking them up"
        )
    return made


def _columns(path: Path, columns: Mapping[str, str], row: Mapping[str, Any]) -> dict[str, str]:
    """Return the column of everything that is read: as named, else the first of the usual ones that is there."""
    usual = {role: next((name for name in names if name in row), None) for role, names in ROLES.items()}
    chosen = {role: column for role, column in usual.items() if column is not None} | dict(columns)
    for role in columns:
        if chosen[role] not in row:
            raise DataError(f"{path}: --column {role}={chosen[role]}: {unknown_name('column', chosen[role], row)}")
    for role in ("prompt", "response"):
        if role not in chosen:
            raise DataError(
                f"{path}: no column of the {role}: none of {', '.join(map(repr, ROLES[role]))}; the file has "
                f"{', '.join(map(repr, row))}; name it, as in --column {role}={next(iter(row), 'COLUMN')}"
            )
    return chosen


def _example(row: Row, columns: Mapping[str, str], kind_of_prompt: str | None) -> Example:
    own = {role: row.optional(columns[role]) for role in ("axis", "probe", "kind", "group") if role in columns}
    facts = row.json("facts") if isinstance(row.values.get("facts"), dict) else {}
    facts = {**facts, **{name: row.json(column) for name, column in columns.items() if name not in ROLES}}
    told = kind_of_prompt or own.get("probe") or UNTOLD
    return Example(
        row.text(columns["prompt"]),
        own.get("axis") or "answers",
        told if told in PROBES else UNTOLD,
        kind=own.get("kind", ""),
        group=own.get("group", ""),
        facts=facts,
        source=row.source,
    )


def _with_prompt(given: Given, prompt: Example) -> Given:
    """Return the answer to a known prompt: kind and facts are the prompt's, where the row does not say its own."""
    own = given.answer.example
    example = replace(
        prompt, kind=own.kind or prompt.kind, facts={**prompt.facts, **own.facts}, response=None, source=own.source
    )
    return replace(given, answer=replace(given.answer, example=example))


def repeated(answers: Sequence[Given]) -> int:
    """Return how many answers a system gave to a prompt that it had answered before."""
    counts = Counter((given.system, given.answer.example.id) for given in answers)
    return sum(n - 1 for n in counts.values())
