from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocae.errors import ConfigError
from mocae.judges.overlap import MatchJudge, OverlapJudge, rouge_l, token_f1
from mocae.types import Answer, Example

WORDS = st.lists(st.sampled_from("abc"), max_size=8).map(" ".join)


def _answer(text: str, **facts: object) -> Answer:
    return Answer(Example("p", "a", "task", facts=facts), text)


@given(WORDS, WORDS)
def test_overlaps_are_symmetric_and_order_never_adds(a: str, b: str) -> None:
    assert token_f1(a, b) == token_f1(b, a)
    assert rouge_l(a, b) == rouge_l(b, a)
    assert 0 <= rouge_l(a, b) <= token_f1(a, b) <= 1
    assert rouge_l(a, a) == 1.0


def test_overlaps_by_hand() -> None:
    # 4 words and 5 words; shared as bags: a b c (3), in order: a c (2) or b c (2)
    assert token_f1("a b c d", "b, A; c e e.") == pytest.approx(2 * 3 / 9)
    assert rouge_l("a b c d", "b, A; c e e.") == pytest.approx(2 * 2 / 9)
    assert token_f1("", "a") == 0.0


@pytest.mark.parametrize(
    ("text", "score"), [("x", 0.0), ("a x x", 0.5 * 0.4 / 0.5), ("a b", 1.0), ("A", 0.5 + 0.5 / 3)]
)
def test_the_threshold_becomes_one_half(text: str, score: float) -> None:
    (verdict,) = OverlapJudge(threshold=0.5).judge([_answer(text, reference="a b")])
    assert verdict["correct"].score == pytest.approx(score)
    assert verdict["correct"].label == f"overlap {rouge_l(text, 'a b'):.2f}"


def test_the_best_of_several_references_counts_and_none_says_nothing() -> None:
    judge = OverlapJudge(measure="token-f1")
    many, none = judge.judge([_answer("b a", reference=["x", "a b"]), _answer("a")])
    assert (many["correct"].score, none) == (1.0, {})


@pytest.mark.parametrize("reference", [3, [], ["a", 3]])
def test_a_reference_of_another_type_is_unscored(reference: object) -> None:
    (verdict,) = OverlapJudge().judge([_answer("a", reference=reference)])
    assert verdict["correct"].score is None
    assert "Error" in verdict["correct"].raw


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_thresholds_at_the_ends_are_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match=f"threshold is {threshold}; expected above 0 and below 1"):
        OverlapJudge(threshold=threshold)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (
            "\u6cd5\u56fd\u7684\u9996\u90fd\u662f\u5df4\u9ece",
            "\u5df4\u9ece\u662f\u6cd5\u56fd\u7684\u9996\u90fd",
            5 / 8,
        ),  # Chinese
        ("\u0e9b\u0eb2\u0ea3\u0eb5", "\u0e9b\u0eb2\u0ea3\u0eb5\u0eaa", 8 / 9),  # Lao, vowel signs are characters
        ("\u30d1\u30ea Paris", "\uff76\uff9e PARIS\uff01", 2 / 5),  # kana and Latin in one text, half and full width
        ("cafe\u0301 cre\u0300me", "caf\u00e9 cr\u00e8me", 1.0),  # accents typed as two characters
        ("\u0939\u093f\u0928\u094d\u0926\u0940", "\u0939\u093f\u0928\u094d\u0926", 0.0),  # Hindi has spaces: two words
        ("\ud55c\uad6d\uc5b4 \uc218\ub3c4", "\uc218\ub3c4", 2 / 3),  # and so has Korean
    ],
)
def test_texts_without_spaces_are_compared_by_characters(one: str, other: str, overlap: float) -> None:
    assert rouge_l(one, other) == pytest.approx(overlap)
    assert rouge_l(unicodedata.normalize("NFD", one), other) == pytest.approx(overlap)


@pytest.mark.parametrize(
    ("text", "score"),
    [("the Nile.", 1.0), ("NILE\nIt is long.", 1.0), ("The river Nile", 0.0), ("", 0.0), ("Yes", 0.0)],
)
def test_a_short_answer_matches_word_for_word(text: str, score: float) -> None:
    (verdict,) = MatchJudge().judge([_answer(text, reference="The Nile")])
    assert verdict["correct"].score == score


def test_long_references_and_none_are_not_matched() -> None:
    judge = MatchJudge(most_words=2)
    texts = [
        _answer("one two three", reference="one two three"),
        _answer("one"),
        _answer("b", reference=["a c d", "b"]),
    ]
    assert [v.get("correct") and v["correct"].score for v in judge.judge(texts)] == [None, None, 1.0]


@pytest.mark.parametrize(
    ("text", "score", "label"),
    [
        ("I believe that it was the Nile, which flows north.", 1.0, "names the reference"),
        ("The Nile", 1.0, "match"),
        ("It is the river Niles.", 0.0, "no match"),
        ("I do not know whether it is the Nile.", 0.0, "abstains"),
        ("Which is longer, the Nile or the Rhine?", 0.0, "no match"),  # the question repeated
        ("The Rhine is longer than the Rhone.", None, "unscored: the question names the reference as well"),
        ("", 0.0, "abstains"),
    ],
)
def test_a_question_may_be_answered_by_a_sentence(text: str, score: float | None, label: str) -> None:
    repeats = text.startswith("Which")
    prompt = "Which is longer, the Nile or the Rhine?" if repeats or score is None else "Which river is the longest?"
    references = ["\U0001f30a", "great old river of Egypt", "the Rhine" if score is None else "The Nile"]
    example = Example(prompt, "honesty", "answerable", facts={"reference": references})
    (verdict,) = MatchJudge(most_words=1).judge([Answer(example, text)])
    assert (verdict["correct"].score, verdict["correct"].label) == (score, label)


def test_a_reference_without_words_matches_nothing() -> None:
    assert MatchJudge().judge([_answer("", reference=["\U0001f30a"]), _answer("!", reference="?")]) == [{}, {}]
