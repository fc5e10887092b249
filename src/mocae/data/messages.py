"""Rows of messages, as chat data sets have them: ChatML's `messages` and ShareGPT's `conversations`."""

from __future__ import annotations

from pathlib import Path

from mocae import axes
from mocae.data.rows import OnBadRow, ReadResult, Row, examples_in, needs_path
from mocae.types import Example

__all__ = ["read_messages"]

_ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


def read_messages(
    path: Path | None, *, axis: str, on_bad_row: OnBadRow = "error", probe: str = "task", single_turn: bool = False
) -> ReadResult:
    """Return the first question of each conversation as prompt and its answer as response.

    A row has `messages`, a list of {"role", "content"}, or `conversations`, a list of {"from", "value"}. A system
    message opens the prompt, an empty line behind it. An example is one question, so later turns are not read.

    Args:
        path: the file.
        axis: whose rows these are.
        on_bad_row: whether a bad row stops the reading or is counted and left out.
        probe: what kind of test the prompts are.
        single_turn: leave out conversations of more than one question.

    Raises:
        ConfigError: no path.
        PluginError: no such probe.
        DataError: see `mocae.data.rows.examples_in`; turns in another order than system, user, assistant are a bad row.
    """
    kind = axes.probe(probe).name

    def convert(row: Row) -> Example | None:
        turns = _turns(row)
        system = turns.pop(0)[1] if turns[0][0] == "system" else ""
        wanted = ["user", "assistant"] * len(turns)
        if len(turns) < 2 or any(role != other for (role, _), other in zip(turns, wanted, strict=False)):
            raise row.wrong("messages", "turns in another order", "system (or none), then user and assistant in turn")
        if single_turn and len(turns) > 2:
            return None
        question = f"{system}\n\n{turns[0][1]}" if system.strip() else turns[0][1]
        answer = turns[1][1]
        return Example(question, axis, kind, answer, facts={"reference": answer}, source=row.source)

    return examples_in(needs_path("messages", path), convert, on_bad_row=on_bad_row)


def _turns(row: Row) -> list[tuple[str, str]]:
    """Return role and text of each message, at least one."""
    name, role, text = ("messages", "role", "content")
    if name not in row.values and "conversations" in row.values:
        name, role, text = ("conversations", "from", "value")
    messages = row.json(name)
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise row.wrong(name, "no list of messages", f"a list of objects with {role!r} and {text!r}")
    each = [Row(message, f"{row.where}: {name}[{i}]", row.source) for i, message in enumerate(messages)]
    return [(_ROLES[message.one_of(role, tuple(_ROLES))], message.text(text)) for message in each]
