from __future__ import annotations

import json
import lzma
import sys
from typing import Any

import pytest

from mocae.data import read_source
from mocae.errors import ConfigError
from mocae.judges import build_judge
from mocae.types import Answer, Example, Verdict
from real_data import real_data

pytest.importorskip("if_verifiable")
TOKENIZED = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}


def _judge(text: str, *checks: tuple[str, dict[str, Any]]) -> dict[str, Verdict]:
    facts = {"checks": [{"check": name, "arguments": arguments} for name, arguments in checks]}
    (verdicts,) = build_judge("ifeval").judge([Answer(Example("p", "a", "verifiable", facts=facts), text)])
    return verdicts


NO_COMMA: tuple[str, dict[str, Any]] = ("punctuation:no_comma", {})
LOWER: tuple[str, dict[str, Any]] = ("change_case:english_lowercase", {})
SUN: tuple[str, dict[str, Any]] = ("keywords:existence", {"keywords": ["sun"]})


@pytest.mark.parametrize(
    ("text", "follows", "share", "loosely"),
    [
        ("the sun is warm and the sky is wide today", 1, 1, 1),
        ("the sun is warm, and the sky is wide today", 0, 2 / 3, 0),
        ("Sure, here it is:\nthe sun is warm and the sky is wide today", 0, 1 / 3, 1),  # a first line is forgiven
        ("The moon, they say, is far away", 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_all_checks_single_checks_and_loosely(text: str, follows: float, share: float, loosely: float) -> None:
    verdicts = _judge(text, NO_COMMA, LOWER, SUN)
    assert [verdicts[name].score for name in ("follows", "checks", "follows_loose")] == pytest.approx(
        [follows, share, loosely]
    )
    raw = json.loads(verdicts["follows"].raw)
    assert [row["check"] for row in raw] == [NO_COMMA[0], LOWER[0], SUN[0]]
    assert sum(row["strict"] for row in raw) == pytest.approx(share * 3)


def test_an_answer_without_checks_is_not_judged() -> None:
    assert build_judge("ifeval").judge([Answer(Example("p", "a", "task"), "text")]) == [{}]


@pytest.mark.parametrize(
    ("check", "arguments"),
    [
        ("keywords:letter_frequency", {"letter": "#", "let_relation": "at least", "let_frequency": 2}),
        ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 5, "first_word": "x"}),
        ("keywords:frequency", {"keyword": "sun", "relation": "at least"}),
    ],
)
def test_what_would_be_drawn_at_random_is_unscored(check: str, arguments: dict[str, Any]) -> None:
    verdicts = _judge("# one # two", NO_COMMA, (check, arguments))
    assert {verdict.score for verdict in verdicts.values()} == {None}
    assert f"{check}: its arguments" in verdicts["follows"].raw


@pytest.mark.parametrize(
    ("check", "arguments", "error"),
    [
        ("punctuation:no_dots", {}, "check 'punctuation:no_dots' is unknown"),
        ("keywords:existence", {"keywords": ["("]}, "unterminated"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "about"}, "less than"),
    ],
)
def test_a_check_that_cannot_be_made_is_unscored(check: str, arguments: dict[str, Any], error: str) -> None:
    verdicts = _judge("some text", (check, arguments))
    assert verdicts["follows"].score is None
    assert error in verdicts["follows"].raw


def test_checks_that_need_tokenizer_data_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from if_verifiable.ifeval import instructions_util

    def missing() -> None:
        raise LookupError("Resource punkt_tab not found")

    monkeypatch.setattr(instructions_util, "_get_sentence_tokenizer", missing)
    check = ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"})
    verdicts = _judge("One. Two.", NO_COMMA, check)
    assert verdicts["follows"].score is None
    assert "needs tokenizer data; run: python -m nltk.downloader punkt_tab" in verdicts["follows"].raw


def test_language_is_judged_the_same_every_time() -> None:
    text, check = "La mer est belle sun moon", ("language:response_language", {"language": "fr"})
    assert len({_judge(text, check)["follows"].score for _ in range(20)}) == 1


def test_a_missing_package_is_told_when_the_judge_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "if_verifiable", None)
    with pytest.raises(
        ConfigError, match=r"judge 'ifeval': if_verifiable is not installed; run: pip install 'mocae\[eval\]'"
    ):
        build_judge("ifeval")


@pytest.mark.slow
def test_gpt4s_responses_get_the_official_verdicts() -> None:
    examples = read_source("ifeval", real_data("ifeval/input_data.jsonl.xz"), axis="a").examples
    by_prompt = {example.prompt: example for example in examples}
    with lzma.open(real_data("ifeval/gpt4_responses.jsonl.xz"), "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    judged = build_judge("ifeval").judge([Answer(by_prompt[row["prompt"]], row["response"]) for row in rows])
    n_equal, drawn = 0, []
    for row, verdicts in zip(rows, judged, strict=True):
        if verdicts["follows"].score is None:
            checks = {c["check"] for c in by_prompt[row["prompt"]].facts["checks"]}
            if not checks & TOKENIZED or "at random" in verdicts["follows"].raw:
                drawn.append(verdicts["follows"].raw)
            continue
        found = json.loads(verdicts["follows"].raw)
        assert [check["strict"] for check in found] == row["strict"]
        assert [check["loose"] for check in found] == row["loose"]
        assert verdicts["follows"].score == all(row["strict"])
        n_equal += len(found)
    assert n_equal in (422, 498)  # without and with tokenizer data
    assert len(drawn) == 2  # the frequency of "#" and of "!"
    assert all("letter_frequency" in raw for raw in drawn)
