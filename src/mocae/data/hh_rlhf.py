"""HH-RLHF: conversations that end with a chosen and with a rejected answer."""

from __future__ import annotations

from pathlib import Path

from mocae import axes
from mocae.data.rows import OnBadRow, ReadResult, Row, examples_in, needs_path
from mocae.types import Example

__all__ = ["read_hh_rlhf"]

_HUMAN, _ASSISTANT = "\n\nHuman: ", "\n\nAssistant: "


def read_hh_rlhf(
    path: Path | None,
    *,
    axis: str,
    on_bad_row: OnBadRow = "error",
    probe: str = "harmful",
    single_turn: bool = False,
) -> ReadResult:
    """Return the conversations as prompts: the last answer chosen is the response, the other `facts["rejected"]`.

    Earlier turns stay in the prompt as they are written in the data. `group` is the first question, which several rows
    share.

    Args:
        path: rows of chosen and rejected, each a whole conversation.
        axis: whose rows these are.
        on_bad_row: whether a bad row stops the reading or is counted and left out.
        probe: what kind of test the prompts are.
        single_turn: leave out conversations of more than one question.

    Raises:
        ConfigError: no path.
        PluginError: no such probe.
        DataError: see `mocae.data.rows.examples_in`; conversations that differ before the last answer are a bad row.

    Reference:
        Bai et al., *Training a Helpful and Harmless Assistant*, arXiv:2204.05862.
    """
    kind = axes.probe(probe).name

    def convert(row: Row) -> Example | None:
        prompt, chosen = _cut(row, "chosen")
        other, rejected = _cut(row, "rejected")
        if prompt != other:
            raise row.wrong("rejected", "another conversation", "the conversation of `chosen` up to the last answer")
        first, *more = prompt.split(_ASSISTANT)
        if more and single_turn:
            return None
        return Example(prompt, axis, kind, chosen, group=first.strip(), facts={"rejected": rejected}, source=row.source)

    return examples_in(needs_path("hh-rlhf", path), convert, on_bad_row=on_bad_row)


def _cut(row: Row, name: str) -> tuple[str, str]:
    """Return a conversation up to its last answer, without the first mark, and that answer."""
    text = row.text(name)
    before, mark, answer = text.rpartition(_ASSISTANT.rstrip(" "))
    if not mark or not answer.strip() or not before.strip().startswith(_HUMAN.strip()):
        raise row.wrong(name, "no conversation", "'\\n\\nHuman: ...\\n\\nAssistant: ...' that ends with an answer")
    return before.strip().removeprefix(_HUMAN.strip()).strip(), answer.strip()
