from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.special import softmax

from mocae.errors import DataError
from mocae.metrics import MultipleChoiceScores, multiple_choice_scores


def test_by_hand() -> None:
    # true answers 2/10 (best) and 3/10, false ones 1/10 (best) and 2/10
    true, false = [Fraction(2, 10), Fraction(3, 10)], [Fraction(1, 10), Fraction(2, 10)]
    scores = multiple_choice_scores([math.log(p) for p in true], [math.log(p) for p in false], best_false=0)
    assert scores.mc0 == 1  # 0.2 > 0.1
    assert scores.mc1 == 0  # 0.2 against 0.2: a tie is no win
    assert scores.mc2 == pytest.approx(float(sum(true) / (sum(true) + sum(false))))
    assert multiple_choice_scores([math.log(p) for p in true], [math.log(p) for p in false], best_true=1).mc1 == 1


def test_agrees_with_softmax_and_rank() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        true, false = -40 * rng.random(rng.integers(1, 6)), -40 * rng.random(rng.integers(1, 6))
        best_true, best_false = int(rng.integers(true.size)), int(rng.integers(false.size))
        scores = multiple_choice_scores(true, false, best_true=best_true, best_false=best_false)
        assert scores.mc2 == pytest.approx(softmax(np.concatenate([true, false]))[: true.size].sum())
        ranked = sorted([(true[best_true], True), *((p, False) for p in false)], reverse=True)
        assert scores.mc1 == ranked[0][1]
        assert scores.mc0 == (true[best_true] > false[best_false])


def test_long_answers_do_not_underflow() -> None:
    assert np.exp(-2000.0) == 0
    near = multiple_choice_scores([-2.0, -3.0], [-1.0])
    far = multiple_choice_scores([-2002.0, -2003.0], [-2001.0])
    assert far.mc2 == pytest.approx(near.mc2)


def test_impossible_answers() -> None:
    assert multiple_choice_scores([-1.0], [-math.inf]) == MultipleChoiceScores(mc0=None, mc1=1.0, mc2=1.0)
    assert multiple_choice_scores([-math.inf], [-1.0]) == MultipleChoiceScores(mc0=None, mc1=0.0, mc2=0.0)
    with pytest.raises(DataError, match="every reference answer has probability 0"):
        multiple_choice_scores([-math.inf], [-math.inf])


def test_refusals() -> None:
    with pytest.raises(DataError, match=r"false_log_probs\[1\] is 0.3; a log-probability is 0 or less"):
        multiple_choice_scores([-1.0], [-1.0, 0.3])
    with pytest.raises(DataError, match=r"true_log_probs\[0\] is nan"):
        multiple_choice_scores([None], [-1.0])
    with pytest.raises(DataError, match=r"true_log_probs has shape \(0,\)"):
        multiple_choice_scores([], [-1.0])
    with pytest.raises(DataError, match="false_log_probs is not a list of numbers"):
        multiple_choice_scores([-1.0], ["low"])
    with pytest.raises(DataError, match="best_true is 1; there are 1 answers"):
        multiple_choice_scores([-1.0], [-2.0], best_true=1)
    with pytest.raises(DataError, match="best_false is -1; there are 1 answers"):
        multiple_choice_scores([-1.0], [-2.0], best_false=-1)
