"""Expressions of adapters are matched as PEFT matches them, and in bounded time."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mocae.bank.patterns import Pattern

MODULE = "model.layers.11.self_attn.q_proj"


def as_peft(pattern: str, text: str) -> bool:
    return re.match(rf"(.*\.)?({pattern})$", text) is not None


@pytest.mark.parametrize(
    "pattern",
    [
        *("q_proj", "attn.q_proj", r"self_attn\.q_proj", "proj", "k_proj", MODULE, f"^{MODULE}", "^q_proj", "q_proj$"),
        *(r".*q_proj", r"layers\.\d+\..*", r"layers\.(?:0|11)\.self_attn\.(q|k)_proj", r"layers\.[0-9]{2}\..*?q_proj"),
        *(r"layers\.[0-9]{1}\..*", r"layers\.[^1]+\..*", r"(\w+\.)+q_proj", r"((a*)*)*q_proj", "", "|q_proj", "x{0,3}"),
    ],
)
def test_a_module_is_looked_up_as_peft_does(pattern: str) -> None:
    for text in (MODULE, "lm_head", "model.layers.1.mlp.up_proj"):
        assert Pattern(pattern).ends(text) == as_peft(pattern, text), text


@settings(max_examples=300, deadline=None)
@given(pattern=st.text("ab.|()*+?", max_size=10), text=st.text("ab.", max_size=8))
def test_any_expression_matches_as_re_does_or_is_refused(pattern: str, text: str) -> None:
    try:
        found = Pattern(pattern)
    except ValueError:
        return
    assert found.ends(text) == as_peft(pattern, text)


@pytest.mark.parametrize("pattern", [".?" * 40 + "x", "(a*)*x", "(((a+)+)+)+x", "(.*.*.*)*x", "a{0,999}" * 40])
def test_no_expression_tries_for_ever(pattern: str) -> None:
    begun = time.perf_counter()
    assert not Pattern(pattern).ends("a" * 1000 + "b")
    assert time.perf_counter() - begun < 2


@pytest.mark.parametrize(
    "pattern",
    ["(a", "a)", "*a", "(?!a)", "(?P<n>a)", r"(a)\1", r"\bq", "[z-a]", "(" * 51 + ")" * 51, "a" * 1001],
)
def test_what_is_no_expression_here_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Pattern(pattern)
