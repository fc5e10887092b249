from __future__ import annotations

import csv
import json
import lzma
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mocae.errors import DataError
from mocae.metrics import (
    OverRefusal,
    WinRate,
    average_alignment_score,
    over_refusal,
    truthful_and_informative,
    truthful_informative,
    unsafe_rate,
    win_rate,
    wins_from_preferences,
    wins_from_scores,
)


@pytest.fixture
def data_root() -> Path:
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    root = Path(os.environ.get("MOCAE_DATA_ROOT", default))
    if not (root / "alpaca_eval").is_dir():
        pytest.skip("no real data; set MOCAE_DATA_ROOT")
    return root


def test_win_rate_by_hand() -> None:
    # wins 1, 0, 1/2, 1/2, 1/4: mean 0.45; squared deviations 0.3025 + 0.2025 + 0.0025 + 0.0025 + 0.04 = 0.55
    result = win_rate([2, 1, 0, 1.5, 1.25, None, float("nan")])
    assert result.value == pytest.approx(0.45)
    assert result.standard_error == pytest.approx((0.55 / 4 / 5) ** 0.5)
    assert (result.n, result.n_unscored) == (5, 2)


def test_win_rate_agrees_with_scipy() -> None:
    preferences = np.random.default_rng(0).uniform(1, 2, size=300)
    result = win_rate(preferences)
    assert result.value == pytest.approx(preferences.mean() - 1)
    assert result.standard_error == pytest.approx(stats.sem(preferences))


def test_win_rate_without_scored_rows_is_no_number() -> None:
    assert win_rate([None, None]) == WinRate(value=None, standard_error=None, n=0, n_unscored=2)
    assert win_rate([2]) == WinRate(value=1.0, standard_error=None, n=1, n_unscored=0)


@pytest.mark.parametrize("version", ["AE1", "AE2"])
def test_win_rate_is_the_published_one(data_root: Path, version: str) -> None:
    with (data_root / "alpaca_eval" / f"{version}_leaderboard.csv").open() as file:
        published = {row[""]: row for row in csv.DictReader(file)}
    assert published
    for model, row in published.items():
        with lzma.open(data_root / "alpaca_eval" / f"{version}_{model}.json.xz", "rt") as file:
            result = win_rate([annotation["preference"] for annotation in json.load(file)])
        assert result.n == int(row["n_total"])
        assert result.value == pytest.approx(float(row["win_rate"]) / 100, abs=1e-12)
        assert result.standard_error == pytest.approx(float(row["standard_error"]) / 100, abs=1e-12)


@pytest.mark.parametrize("wrong", [-1, 0.5, 2.01, "2", True, float("inf")])
def test_other_preferences_are_refused(wrong: object) -> None:
    with pytest.raises(DataError, match=rf"preferences\[1\] is {wrong!r}; accepted are 1"):
        win_rate([1, wrong])


def test_wins_keep_their_rows() -> None:
    assert wins_from_preferences([None, 2, np.float32(1.5)]) == [None, 1.0, 0.5]
    with pytest.raises(DataError, match="preferences is empty"):
        wins_from_preferences([])


def test_wins_from_scores_is_a_comparison_of_pairs() -> None:
    rng = np.random.default_rng(1)
    system, reference = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
    expected = [1.0 if s > r else 0.5 if s == r else 0.0 for s, r in zip(system, reference, strict=True)]
    assert wins_from_scores(system, reference).tolist() == expected
    assert (wins_from_scores(system, reference) + wins_from_scores(reference, system) == 1).all()
    with pytest.raises(DataError, match="system_scores has 2, reference_scores has 1"):
        wins_from_scores([1, 0], [1])


def test_unsafe_rate() -> None:
    assert unsafe_rate([True, False, False, True, False]) == 0.4
    assert unsafe_rate(np.array([1, 0])) == 0.5
    with pytest.raises(DataError, match=r"unsafe\[0\] = 0.7 must be True / False"):
        unsafe_rate([0.7, 0.2])
    with pytest.raises(DataError, match="unsafe is empty"):
        unsafe_rate([])


def test_product_and_joint_share_differ() -> None:
    truthful, informative = [1, 1, 1, 0], [0, 0, 1, 1]
    assert truthful_informative(truthful, informative) == 0.75 * 0.5
    assert truthful_and_informative(truthful, informative) == 0.25
    assert truthful_informative(truthful, [1] * 4) == truthful_and_informative(truthful, [1] * 4) == 0.75
    for metric in (truthful_informative, truthful_and_informative):
        with pytest.raises(DataError, match="truthful has 1, informative has 2"):
            metric([1], [1, 0])
        with pytest.raises(DataError, match=r"informative\[0\] = 0.5"):
            metric([1], [0.5])


def test_average_alignment_score() -> None:
    assert average_alignment_score(win_rate=1.0, truthful_informative=1.0, unsafe_rate=0.0) == pytest.approx(2 / 3)
    assert average_alignment_score(win_rate=0.0, truthful_informative=0.0, unsafe_rate=1.0) == pytest.approx(-1 / 3)
    assert average_alignment_score(win_rate=0.6, truthful_informative=0.5, unsafe_rate=0.2) == pytest.approx(0.3)
    with pytest.raises(DataError, match=r"unsafe_rate is 4\.0; it must lie in \[0, 1\]"):
        average_alignment_score(win_rate=0.6, truthful_informative=0.5, unsafe_rate=4.0)


def test_over_refusal() -> None:
    labels = ["full_compliance"] * 5 + ["full_refusal"] * 2 + ["partial_refusal"] + [None] * 3
    assert over_refusal(labels) == OverRefusal(
        over_refusal=0.375, full_refusal=0.25, partial_refusal=0.125, n=8, n_unscored=3
    )
    assert over_refusal([None]).over_refusal is None
    with pytest.raises(DataError, match=r"labels\[1\]: unknown refusal label 'full_refussal'.*Did you mean"):
        over_refusal(["full_compliance", "full_refussal"])
    with pytest.raises(DataError, match="labels is empty"):
        over_refusal([])


@pytest.mark.parametrize(("model", "full", "partial"), [("gpt4", 0.064, 0.02), ("llama2orig", 0.38, 0.216)])
def test_over_refusal_is_the_one_the_xstest_paper_prints(
    data_root: Path, model: str, full: float, partial: float
) -> None:
    with (data_root / "xstest" / f"completions_{model}.csv").open() as file:
        safe = [row for row in csv.DictReader(file) if not row["type"].startswith("contrast")]
    result = over_refusal([row["final_label"].split("_", 1)[1] for row in safe])
    assert (result.n, result.full_refusal, result.partial_refusal) == (250, pytest.approx(full), pytest.approx(partial))
