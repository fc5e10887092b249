"""Rows of messages, as chat data sets have them: ChatML's `messages` and ShareGPT's `conversations`."""

from __future__ import annotations

from mocae import axes
from mocae.data.rows import Row, row_source
from mocae.types import Example

__all__ = ["read_messages"]

_ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


@row_source("messages")
def read_messages(row: Row, *, probe: str = "task", single_turn: bool = False) -> Example | None:
    """Return the first question of a conversation as prompt and its answer as response.

    A row has `messages`, a list of {"role", "content"}, or `conversations`, a list of {"from", "value"}. A system
    message opens the prompt, an empty line behind it. An example is one question, so later turns are not read; turns in
    another order than system, user, assistant are a bad row.

    Args:
        row: of the file.
        probe: what kind of test the prompts are.
        single_turn: leave out conversations of more than one question.

    Raises:
        PluginError: no such probe.
    """
    turns = _turns(row)
    system = turns.pop(0)[1] if turns[0][0] == "system" else ""
    wanted = ["user", "assistant"] * len(turns)
    if len(turns) < 2 or any(role != other for (role, _), other in zip(turns, wanted, strict=False)):
        raise row.wrong("messages", "turns in another order", "system (or none), then user and assistant in turn")
    if single_turn and len(turns) > 2:
        return None
    question = f"{system}\n\n{turns[0][1]}" if system.strip() else turns[0][1]
    answer = turns[1][1]
    return row.example(question, axes.probe(probe).name, answer, facts={"reference": answer})


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
