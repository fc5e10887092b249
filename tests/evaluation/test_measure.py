from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

import mocae.data.honesty  # noqa: F401  # registers its probes
from mocae.axes import probe as find_probe
from mocae.errors import DataError
from mocae.evaluation import Bootstrap, difference, measure_routing, measure_system, measure_weights
from mocae.metrics import win_rate
from mocae.types import Answer, Example, Sample, Verdict

BOOT = Bootstrap(n_resamples=200, seed=3)
AXES = ("help", "harm", "truth")


def sample(
    axis: str,
    probe: str,
    name: str,
    *,
    kind: str = "",
    group: str = "",
    weights: Mapping[str, float] | None = None,
    **scores: float | None,
) -> Sample:
    example = Example(f"{axis} {probe} {name}", axis, probe, kind=kind, group=group)
    verdicts = {judgement: Verdict(None if score is None else float(score)) for judgement, score in scores.items()}
    return Sample("any", Answer(example, "", weights), verdicts, find_probe(probe).accepts(verdicts))


def rows(axis: str, probe: str, **scores: Sequence[float | None]) -> list[Sample]:
    names = range(len(next(iter(scores.values()))))
    return [sample(axis, probe, str(i), **{judgement: s[i] for judgement, s in scores.items()}) for i in names]


BASE = [
    *rows("help", "task", correct=[0, 1, 1, 0]),
    *rows("harm", "harmful", unsafe=[1, 1]),
    *rows("harm", "benign", refusal=[0, 0, 0, 0], correct=[1, 1, 1, 1]),
    *rows("truth", "question", truthful=[0, 0, 0, 0], informative=[1, 1, 1, 1]),
]
SYSTEM = [
    *rows("help", "task", correct=[1, 1, 0, 0]),  # win, draw, loss, draw
    *rows("harm", "harmful", unsafe=[1, 0]),
    *rows("harm", "benign", refusal=[1, 0, 0, 0], correct=[0, 1, 1, 1]),
    *rows("truth", "question", truthful=[1, 1, 1, 0], informative=[1, 0, 1, 1]),
]


def values(entry: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: estimate["value"] for name, estimate in entry.items()}


def test_a_case_worked_by_hand() -> None:
    entry = measure_system(SYSTEM, BASE, AXES, boot=BOOT)
    assert values(entry["help"]) == {"win_rate": 0.5, "pass_rate": 0.5}
    assert values(entry["harm"]) == {"unsafe_rate": 0.5, "over_refusal_rate": 0.25, "pass_rate": pytest.approx(4 / 6)}
    assert values(entry["truth"]) == {
        "truthful_rate": 0.75,
        "informative_rate": 0.75,
        "truthful_informative": 0.5625,
        "pass_rate": 0.5,
    }
    # Harmlessness: half safe on harmful requests (1 of 2), half helpful on harmless ones (3 of 4).
    assert values(entry["axis_scores"]) == {"help": 0.5, "harm": 0.625, "truth": 0.5}
    assert entry["mean_axis_score"]["value"] == pytest.approx((0.5 + 0.625 + 0.5) / 3)
    assert entry["average_alignment_score"]["value"] == pytest.approx((0.5 + 0.5625 - 0.5) / 3)
    assert entry["mean_axis_score"]["n"] == entry["average_alignment_score"]["n"] + 4 == 14


def test_a_win_is_over_the_reference_where_answers_are_compared_with_it() -> None:
    """Two systems that always beat the reference both win always; a flip is half a win and not acceptable."""
    judged = [sample("help", "task", str(i), win=win, correct=win > 0.5) for i, win in enumerate([1, 1, 0.5, 0])]
    rest = [row for row in SYSTEM if row.answer.example.axis != "help"]
    always = [*rows("help", "task", win=[1, 1, 1, 1], correct=[1, 1, 1, 1]), *rest]
    for base in (always, [], judged):
        entry = measure_system(always, base, AXES, boot=BOOT)
        assert (entry["help"]["win_rate"]["value"], entry["win_rate_against"]) == (1.0, "reference")
        assert entry["average_alignment_score"]["value"] == pytest.approx((1 + 0.5625 - 0.5) / 3)
    entry = measure_system(judged, always, AXES, boot=BOOT)
    assert values(entry["help"]) == {"win_rate": 0.625, "pass_rate": 0.5}
    assert entry["help"]["win_rate"]["value"] == win_rate([1 + s.verdicts["win"].score for s in judged]).value  # type: ignore[operator]
    assert measure_system(SYSTEM, BASE, AXES, boot=BOOT)["win_rate_against"] == "base"


def test_saying_that_one_has_no_answer_is_measured_where_it_is_right_and_where_it_is_wrong() -> None:
    found = [
        *rows("truth", "unanswerable", abstains=[1, 1, 1, 0]),
        *rows("truth", "answerable", abstains=[1, 0, 0, 0, 0]),
        *rows("truth", "limits", abstains=[1, 0, None]),
    ]
    entry = measure_system(found, [], ["truth"], boot=BOOT)["truth"]
    assert values(entry) == {
        "abstention_f1": 0.75,
        "unanswerable_accuracy": 0.75,
        "answerable_accuracy": 0.8,
        "honesty_rate": 0.5,
        "pass_rate": pytest.approx(8 / 11),
    }
    assert entry["honesty_rate"]["n"] == 2


def test_a_system_draws_with_itself() -> None:
    entry = measure_system(BASE, BASE, AXES, boot=BOOT)
    far = 0.5 * (1 - 0.025 ** (1 / 4))  # four draws leave room for prompts that are won or lost
    assert entry["help"]["win_rate"] == {
        "value": 0.5,
        "low": pytest.approx(0.5 - far),
        "high": pytest.approx(0.5 + far),
        "n": 4,
    }


def test_every_estimate_has_an_interval_around_its_value() -> None:
    entry = measure_system(SYSTEM, BASE, AXES, boot=BOOT)
    estimates = [entry["mean_axis_score"], entry["average_alignment_score"], *entry["axis_scores"].values()]
    estimates += [estimate for axis in AXES for estimate in entry[axis].values()]
    for estimate in estimates:
        assert set(estimate) == {"value", "low", "high", "n"}
        assert estimate["low"] <= estimate["value"] <= estimate["high"]
        assert estimate["low"] < estimate["high"]
    assert entry == measure_system(SYSTEM, BASE, AXES, boot=BOOT)
    assert entry != measure_system(SYSTEM, BASE, AXES, boot=Bootstrap(n_resamples=200, seed=4))


def test_a_perfect_score_is_as_sure_as_its_prompts_are_many() -> None:
    perfect = [
        *rows("harm", "harmful", unsafe=[0, 0]),
        *rows("harm", "benign", refusal=[0] * 8, correct=[1] * 8),
    ]
    entry = measure_system(perfect, perfect, ["harm"], boot=BOOT)
    bounds = [0.025 ** (1 / n) for n in (2, 8)]
    assert entry["harm"]["unsafe_rate"] == {"value": 0.0, "low": 0.0, "high": pytest.approx(1 - bounds[0]), "n": 2}
    low = 1 - math.hypot(*((1 - bound) / 2 for bound in bounds))
    for score in (entry["axis_scores"]["harm"], entry["mean_axis_score"]):
        assert score == {"value": 1.0, "low": pytest.approx(low), "high": 1.0, "n": 10}
    half = [*rows("harm", "harmful", unsafe=[1, 1]), *rows("harm", "benign", refusal=[0] * 8, correct=[1] * 8)]
    score = measure_system(half, half, ["harm"], boot=BOOT)["axis_scores"]["harm"]
    wanted = {"value": 0.5, "low": 0.5 - (1 - bounds[1]) / 2, "high": 0.5 + (1 - bounds[0]) / 2, "n": 10}
    assert score == pytest.approx(wanted)


def test_unscored_answers_are_left_out_and_counted() -> None:
    partly = [
        *rows("help", "task", correct=[1, None, 0, 0]),
        *rows("harm", "harmful", unsafe=[None, 0]),
        *rows("truth", "question", truthful=[1, None, 1, 0], informative=[1, 1, None, 1]),
    ]
    entry = measure_system(partly, BASE, AXES, boot=BOOT)
    assert (entry["help"]["pass_rate"]["value"], entry["help"]["pass_rate"]["n"]) == (pytest.approx(1 / 3), 3)
    assert (entry["help"]["win_rate"]["value"], entry["help"]["win_rate"]["n"]) == (0.5, 3)  # win, loss, draw
    assert (entry["harm"]["unsafe_rate"]["value"], entry["harm"]["unsafe_rate"]["n"]) == (0.0, 1)
    truth = entry["truth"]
    assert (truth["truthful_rate"]["value"], truth["truthful_rate"]["n"]) == (pytest.approx(2 / 3), 3)
    assert (truth["informative_rate"]["value"], truth["informative_rate"]["n"]) == (1.0, 3)
    assert (truth["truthful_informative"]["value"], truth["truthful_informative"]["n"]) == (0.5, 2)


def test_a_draw_needs_a_scored_rival() -> None:
    base = rows("help", "task", correct=[None, 1])
    entry = measure_system(rows("help", "task", correct=[1, 1, 1]), base, ["help"], boot=BOOT)
    assert (entry["help"]["win_rate"]["value"], entry["help"]["win_rate"]["n"]) == (0.5, 1)


def test_what_was_not_measured_has_no_value() -> None:
    unscored = rows("help", "task", correct=[None, None])
    entry = measure_system(unscored, unscored, AXES, boot=BOOT)
    nothing = {"value": None, "low": None, "high": None, "n": 0}
    assert entry["help"] == {"win_rate": nothing, "pass_rate": nothing}
    assert entry["harm"] == {"pass_rate": nothing}
    assert entry["axis_scores"] == dict.fromkeys(AXES, nothing)
    assert entry["mean_axis_score"] == entry["average_alignment_score"] == nothing


def test_an_axis_without_scores_does_not_count_in_the_mean() -> None:
    entry = measure_system(rows("help", "task", correct=[1, 1]), BASE, AXES, boot=BOOT)
    assert entry["mean_axis_score"]["value"] == 1.0


def test_kinds_are_measured_apart() -> None:
    some = [
        sample("help", "task", "a", kind="add", correct=1),
        sample("help", "task", "b", kind="add", correct=0),
        sample("help", "task", "c", kind="count", correct=1),
        sample("harm", "harmful", "d", unsafe=0),
    ]
    entry = measure_system(some, some, AXES, boot=BOOT)
    assert {kind: values(rates) for kind, rates in entry["kinds"].items()} == {
        "add": {"pass_rate": 0.5},
        "count": {"pass_rate": 1.0},
    }


def test_groups_are_resampled_whole() -> None:
    alone = [sample("help", "task", str(i), correct=i < 6) for i in range(12)]
    grouped = [sample("help", "task", str(i), group="one" if i < 6 else "two", correct=i < 6) for i in range(12)]
    narrow, wide = (measure_system(s, s, ["help"], boot=BOOT)["help"]["pass_rate"] for s in (alone, grouped))
    assert narrow["value"] == wide["value"] == 0.5
    assert narrow["low"] > 0.0
    assert (wide["low"], wide["high"]) == (0.0, 1.0)


def test_no_samples_are_refused() -> None:
    with pytest.raises(DataError, match="a system has no samples to measure"):
        measure_system([], BASE, AXES, boot=BOOT)


def test_a_difference_is_paired_and_weighs_axes_alike() -> None:
    first = [*rows("help", "task", correct=[1, 1, 1, 0]), *rows("harm", "harmful", unsafe=[0, 0])]
    second = [*rows("help", "task", correct=[1, 0, 0, 0]), *rows("harm", "harmful", unsafe=[1, 0])]
    found = difference(first, second, AXES, boot=BOOT)
    assert (found.value, found.n) == (pytest.approx((2 / 4 + 1 / 2) / 2), 6)
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value <= found.high
    back = difference(second, first, AXES, boot=BOOT)
    assert back.value == -found.value


def test_a_difference_takes_prompts_both_have_scored() -> None:
    first = rows("help", "task", correct=[1, None, 1, 1])
    second = rows("help", "task", correct=[0, 0, None])
    found = difference(first, second, AXES, boot=BOOT)
    assert (found.value, found.n) == (1.0, 1)
    assert difference(rows("help", "task", correct=[1]), rows("harm", "harmful", unsafe=[1]), AXES, boot=BOOT).n == 0


def test_systems_that_agree_everywhere_may_differ_on_prompts_not_seen() -> None:
    same = difference(SYSTEM, SYSTEM, AXES, boot=BOOT)
    shares = {4: (1 / 3, 1 / 6, 1 / 3), 2: (1 / 6,)}  # of the tables with four prompts, and with two
    far = sum((share * (1 - 0.025 ** (1 / n))) ** 2 for n, several in shares.items() for share in several) ** 0.5
    assert (same.value, same.low, same.high) == pytest.approx((0.0, -far, far))


def routed(*cases: tuple[list[float], int | None]) -> list[Sample]:
    """Return samples with weights (a, b) and whether the answer was right."""
    return [
        sample("help", "task", str(i), weights=dict(zip("ab", alpha, strict=True)), correct=right)
        for i, (alpha, right) in enumerate(cases)
    ]


EXPERTS = {"a": rows("help", "task", correct=[1, 0, 0, 0]), "b": rows("help", "task", correct=[0, 1, 0, 1])}


def test_routing_worked_by_hand() -> None:
    # The top expert is right, wrong though b knew, wrong as both were, right; the last answer is worse than b's alone.
    samples = routed(([0.8, 0.2], 1), ([0.6, 0.4], 1), ([0.7, 0.3], 0), ([0.1, 0.9], 0))
    entry = measure_routing(samples, EXPERTS, calibrated=True, boot=BOOT)
    assert entry is not None
    assert entry["misrouted_rate"]["value"] == 0.25
    assert entry["regret"]["value"] == pytest.approx((0 + 0 + 0 + 1) / 4)
    assert entry["over_random"]["value"] == pytest.approx(2 / 4 - (0.5 + 0.5 + 0 + 0.5) / 4)
    assert entry["over_best"]["value"] == pytest.approx(2 / 4 - 2 / 4)  # b alone is right twice
    confidence, outcome = [0.8, 0.6, 0.7, 0.9], [1, 0, 0, 1]
    gaps = [abs(c - o) for c, o in zip(confidence, outcome, strict=True)]  # each alone in its bin
    assert entry["ece"]["value"] == pytest.approx(sum(gaps) / 4)
    assert entry["brier"]["value"] == pytest.approx(sum(gap**2 for gap in gaps) / 4)
    assert sum(b["n"] for b in entry["reliability"]) == 4
    assert 0 < entry["entropy"]["value"] < 1
    assert entry["weights_by_kind"] == {"task": {"a": 0.55, "b": 0.45}}


def test_calibration_is_measured_only_where_weights_are_probabilities() -> None:
    nothing = {"value": None, "low": None, "high": None, "n": 0}
    cases = routed(([0.8, 0.2], 1), ([0.6, 0.4], 1))
    uncalibrated = measure_routing(cases, EXPERTS, calibrated=False, boot=BOOT)
    assert uncalibrated is not None
    assert (uncalibrated["ece"], uncalibrated["brier"], uncalibrated["reliability"]) == (nothing, nothing, [])
    assert uncalibrated["entropy"]["n"] == 2
    summed = measure_routing(routed(([1.0, 1.0], 1), ([1.5, -0.5], 1)), EXPERTS, calibrated=True, boot=BOOT)
    assert summed is not None
    assert (summed["ece"], summed["entropy"]) == (nothing, nothing)
    assert summed["misrouted_rate"]["n"] == 2


def test_routing_leaves_out_what_is_not_judged() -> None:
    samples = routed(([0.8, 0.2], 1), ([0.6, 0.4], None), ([0.7, 0.3], 0), ([0.5, 0.5], 1), ([0.5, 0.5], 1))
    unknown = {"a": rows("help", "task", correct=[1, 0, None, 1]), "b": EXPERTS["b"]}
    entry = measure_routing(samples, unknown, calibrated=True, boot=BOOT)  # the fifth prompt was never asked of them
    assert entry is not None
    assert entry["misrouted_rate"]["n"] == entry["ece"]["n"] == 2
    assert measure_routing(samples[1:2], unknown, calibrated=True, boot=BOOT) is None
    assert measure_routing(rows("help", "task", correct=[1]), EXPERTS, calibrated=True, boot=BOOT) is None


def test_questions_are_routed_by_kind_others_by_probe() -> None:
    asked = [
        sample("truth", "question", "x", kind="invented", weights={"a": 1.0, "b": 0.0}, truthful=1, informative=1),
        sample("truth", "question", "y", weights={"a": 0.5, "b": 0.5}, truthful=1, informative=1),
        sample("help", "task", "z", kind="add", weights={"a": 0.25, "b": 0.75}, correct=1),
    ]
    entry = measure_routing(asked, {"a": asked, "b": asked}, calibrated=False, boot=BOOT)
    assert entry is not None
    assert entry["weights_by_kind"] == {
        "invented": {"a": 1.0, "b": 0.0},
        "question": {"a": 0.5, "b": 0.5},
        "task": {"a": 0.25, "b": 0.75},
    }


def test_weights_of_a_router_of_its_own_are_measured_without_its_experts() -> None:
    rows = routed(([1.0, 0.0], 1), ([0.5, 0.5], None))
    names = list(rows[0].answer.weights or ())
    entry = measure_weights(rows, names, boot=BOOT)
    assert entry is not None
    assert (entry["entropy"]["value"], entry["largest_share"]["value"]) == (0.5, 0.75)
    assert entry["misrouted_rate"]["value"] is None
    assert measure_weights([], names, boot=BOOT) is None


def test_knowing_when_not_to_know_is_an_f1_score() -> None:
    # Abstains on 3 of 4 questions without an answer and on 1 of 4 with one: precision and recall are 3/4.
    some = [
        *rows("truth", "unanswerable", abstains=[1, 1, 1, 0]),
        *rows("truth", "answerable", abstains=[1, 0, 0, 0], correct=[0, 1, 0, None]),
    ]
    entry = measure_system(some, some, ["truth"], boot=BOOT)["truth"]
    assert values(entry) == {
        "abstention_f1": 0.75,
        "unanswerable_accuracy": 0.75,
        "answerable_accuracy": 0.75,
        "answered_correctly": pytest.approx(1 / 3),
        "pass_rate": pytest.approx(4 / 7),
    }
    assert (entry["abstention_f1"]["n"], entry["answered_correctly"]["n"]) == (8, 3)
    never = [*rows("truth", "unanswerable", abstains=[0] * 9), *rows("truth", "answerable", abstains=[0] * 9)]
    entry = measure_system(never, never, ["truth"], boot=BOOT)["truth"]
    assert "answered_correctly" not in entry  # no judge says what is correct, so giving an answer is acceptable
    assert (entry["pass_rate"]["value"], entry["answerable_accuracy"]["value"]) == (0.5, 1.0)
    assert (entry["abstention_f1"]["value"], entry["abstention_f1"]["low"]) == (0.0, 0.0)
    assert entry["abstention_f1"]["high"] == pytest.approx(1 - 0.025 ** (1 / 18))
    answerable = rows("truth", "answerable", abstains=[1, 0])
    assert measure_system(answerable, answerable, ["truth"], boot=BOOT)["truth"]["abstention_f1"]["value"] is None


def test_single_checks_are_counted_over_all_prompts() -> None:
    def asked(name: str, n: int, share: float | None) -> Sample:
        example = Example(name, "help", "verifiable", facts={"checks": [{"check": "c", "arguments": {}}] * n})
        scores = {"follows": share and float(share == 1), "checks": share, "follows_loose": share and 1.0}
        verdicts = {judgement: Verdict(score) for judgement, score in scores.items()}
        return Sample("any", Answer(example, ""), verdicts, find_probe("verifiable").accepts(verdicts))

    some = [asked("a", 3, 1 / 3), asked("b", 1, 1.0), asked("c", 2, 0.5), asked("d", 9, None)]
    entry = measure_system(some, some, ["help"], boot=BOOT)["help"]
    assert values(entry) == {
        "instructions_followed": pytest.approx(1 / 3),
        "instructions_followed_loosely": 1.0,
        "checks_met": 0.5,  # 3 of 6, not the mean of the shares
        "pass_rate": pytest.approx(1 / 3),
    }
    assert entry["checks_met"]["n"] == 3
