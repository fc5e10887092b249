"""IFEval: prompts whose instructions a program can check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mocae.data.rows import Row, row_source
from mocae.errors import ConfigError, unknown_name
from mocae.types import Example

__all__ = ["CHECKS", "read_ifeval"]

CHECKS = (
    "change_case:capital_word_frequency",
    "change_case:english_capital",
    "change_case:english_lowercase",
    "combination:repeat_prompt",
    "combination:two_responses",
    "detectable_content:number_placeholders",
    "detectable_content:postscript",
    "detectable_format:constrained_response",
    "detectable_format:json_format",
    "detectable_format:multiple_sections",
    "detectable_format:number_bullet_lists",
    "detectable_format:number_highlighted_sections",
    "detectable_format:title",
    "keywords:existence",
    "keywords:forbidden_words",
    "keywords:frequency",
    "keywords:letter_frequency",
    "language:response_language",
    "length_constraints:nth_paragraph_first_word",
    "length_constraints:number_paragraphs",
    "length_constraints:number_sentences",
    "length_constraints:number_words",
    "punctuation:no_comma",
    "startend:end_checker",
    "startend:quotation",
)
"""The kinds of instruction: a family and a name."""
_WORDS_OF = {"num_words": 1, "num_sentences": 8, "num_bullets": 8, "num_paragraphs": 20, "num_sections": 20}
"""Argument of a check -> how many words each of what it counts has, roughly."""


@row_source("ifeval")
def read_ifeval(row: Row, *, most_words: int | None = None, without: Sequence[str] = ()) -> Example | None:
    """Return a prompt as a "verifiable" prompt; its checks are in `facts`, its `kind` is the family of the first.

    A row has prompt, instruction_id_list and kwargs, the arguments of each check, where null is as good as missing.

    Args:
        row: of the published JSON lines.
        most_words: leave out prompts that ask for more words, a sentence or bullet counting as 8 and a paragraph or
            section as 20: an answer that is cut off before cannot have them.
        without: kinds of instruction, or families of them ("language"): prompts with one are left out.

    Raises:
        ConfigError: no such kind.

    Reference:
        Zhou et al., *Instruction-Following Evaluation for Large Language Models*, arXiv:2311.07911.
    """
    known = {*CHECKS, *(check.partition(":")[0] for check in CHECKS)}
    for name in without:
        if name not in known:
            raise ConfigError(f"source 'ifeval': without: {unknown_name('kind of instruction', name, known)}")
    checks = _checks(row)
    if any({name, name.partition(":")[0]} & set(without) for name, _ in checks):
        return None
    if most_words is not None and max(_least_words(arguments) for _, arguments in checks) > most_words:
        return None
    facts = {"checks": [{"check": name, "arguments": arguments} for name, arguments in checks]}
    return row.example(row.text("prompt"), "verifiable", kind=checks[0][0].partition(":")[0], facts=facts)


def _checks(row: Row) -> list[tuple[str, dict[str, Any]]]:
    """Return the checks of a row with their arguments.

    Raises:
        DataError: they are no lists of one length of names and objects, or a name is unknown.
    """
    names, arguments = row.json("instruction_id_list"), row.json("kwargs")
    if not isinstance(names, list) or not names:
        raise row.wrong(
            "instruction_id_list", f"a value of type {type(names).__name__}", "a list of checks, at least one"
        )
    for name in names:
        if name not in CHECKS:
            raise row.wrong("instruction_id_list", repr(name)[:60], f"one of {', '.join(CHECKS)}")
    if not isinstance(arguments, list) or [type(each) for each in arguments] != [dict] * len(names):
        raise row.wrong("kwargs", f"a value of type {type(arguments).__name__}", f"a list of {len(names)} objects")
    return [
        (name, {key: value for key, value in each.items() if value is not None})
        for name, each in zip(names, arguments, strict=True)
    ]


def _least_words(arguments: dict[str, Any]) -> int:
    """Return how many words a check asks for, in the answer or in a repetition of the prompt."""
    repeated = len(str(arguments.get("prompt_to_repeat", "")).split())
    if arguments.get("relation") == "less than":
        return repeated
    return max(repeated, *(words * int(arguments.get(name, 0)) for name, words in _WORDS_OF.items()))
