"""HH-RLHF: conversations that end with a chosen and with a rejected answer."""

from __future__ import annotations

from mocae import axes
from mocae.data.rows import Row, row_source
from mocae.types import Example

__all__ = ["read_hh_rlhf"]

_HUMAN, _ASSISTANT = "\n\nHuman: ", "\n\nAssistant: "


@row_source("hh-rlhf")
def read_hh_rlhf(row: Row, *, probe: str = "harmful", single_turn: bool = False) -> Example | None:
    """Return two conversations as one prompt: the last answer chosen is the response, the other `facts["rejected"]`.

    A row has chosen and rejected, each a whole conversation; two that differ before the last answer are a bad row.
    Earlier turns stay in the prompt as they are written in the data. `group` is the first question, which several rows
    share.

    Args:
        row: of the file.
        probe: what kind of test the prompts are.
        single_turn: leave out conversations of more than one question.

    Raises:
        PluginError: no such probe.

    Reference:
        Bai et al., *Training a Helpful and Harmless Assistant*, arXiv:2204.05862.
    """
    prompt, chosen = _cut(row, "chosen")
    other, rejected = _cut(row, "rejected")
    if prompt != other:
        raise row.wrong("rejected", "another conversation", "the conversation of `chosen` up to the last answer")
    first, *more = prompt.split(_ASSISTANT)
    if more and single_turn:
        return None
    return row.example(prompt, axes.probe(probe).name, chosen, group=first.strip(), facts={"rejected": rejected})


def _cut(row: Row, name: str) -> tuple[str, str]:
    """Return a conversation up to its last answer, without the first mark, and that answer."""
    text = row.text(name)
    before, mark, answer = text.rpartition(_ASSISTANT.rstrip(" "))
    if not mark or not answer.strip() or not before.strip().startswith(_HUMAN.strip()):
        raise row.wrong(name, "no conversation", "'\\n\\nHuman: ...\\n\\nAssistant: ...' that ends with an answer")
    return before.strip().removeprefix(_HUMAN.strip()).strip(), answer.strip()
