from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from mocae.report.ablation import draw_ablation, headline, read_parts
from mocae.report.ablation.reading import go
from mocae.report.figures.ablation import draw_parts
from mocae.report.figures.sweep import _half_width


def summary(settings: dict[str, dict[str, list[float | None]]]) -> dict[str, Any]:
    def spread(values: list[float | None]) -> dict[str, Any]:
        known = [value for value in values if value is not None]
        mean = sum(known) / len(known) if len(known) == len(values) else None
        return {"mean": mean, "std": 0.1 if len(known) > 1 else None, "values": values}

    values = {name: dict(pair.split("=") for pair in [name] if pair) for name in settings}
    return {
        "notes": ["synthetic, tiny model"],
        "vary": {key: [v[key] for v in values.values()] for key in next(iter(values.values()))},
        "settings": {
            name: {
                "values": values[name],
                "systems": {
                    system: {
                        "mean_axis_score": spread(v),
                        "plain": not system.startswith("variant"),
                        "one_adapter": system in ("joint", "joint_outcomes", "alone"),
                    }
                    for system, v in systems.items()
                },
                "differences": {},
            }
            for name, systems in settings.items()
        },
    }


SCORES: dict[str, list[float | None]] = {"base": [0.2, 0.3], "expert:a": [0.4, 0.5], "alignx": [0.8, 0.9], "sum": [0.5]}


def texts(svg: str) -> list[str]:
    return [
        "".join(node.itertext()).strip()
        for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]


def test_one_setting_is_a_row_a_system_best_on_top() -> None:
    found = texts(draw_ablation(summary({"": SCORES})))
    assert [text for text in found if text in SCORES] == ["alignx", "sum", "expert:a", "base"]
    assert "synthetic, tiny model" in found


def test_several_settings_are_lines_of_the_compared_systems() -> None:
    found = texts(draw_ablation(summary({"conflict=0": SCORES, "conflict=1": SCORES})))
    assert {"conflict", "0", "1", "alignx", "sum", "synthetic, tiny model"} <= set(found)
    assert not {"base", "expert:a"} & set(found)


def test_base_and_experts_alone_are_lines_too() -> None:
    alone = {name: SCORES[name] for name in ("base", "expert:a")}
    assert {"base", "expert:a"} <= set(texts(draw_ablation(summary({"r=2": alone, "r=4": alone}))))


@pytest.mark.parametrize("names", [[""], ["r=2", "r=4"]])
def test_a_score_that_is_missing_is_not_drawn(names: list[str]) -> None:
    scores: dict[str, list[float | None]] = {**SCORES, "joint": [None, 0.5]}
    assert "joint" in texts(draw_ablation(summary(dict.fromkeys(names, scores))))


def test_the_same_numbers_give_the_same_plot() -> None:
    assert draw_ablation(summary({"": SCORES})) == draw_ablation(summary({"": SCORES}))


def test_the_parts_say_which_side_the_unchanged_system_is_on() -> None:
    part = {"system": "arrow with X", "parent": "arrow", "changed": {}, "difference": {"value": -0.2, "n": 9}}
    plate = draw_parts(read_parts({"parts": [part]}), "s0")
    assert "unchanged system better \u2192" in plate.panels[0].svg
    assert "arrow minus arrow with X: -20.0" in plate.panels[0].svg


def test_a_part_among_many_needs_more_than_an_interval_that_leaves_0_out() -> None:
    just = {"value": 0.02, "low": 0.0005, "high": 0.04, "n": 90}
    clear = {"value": 0.2, "low": 0.15, "high": 0.25, "n": 90}
    parts = [{"system": f"v{i}", "parent": "p", "changed": {}, "difference": just} for i in range(4)]
    parts.append({"system": "w", "parent": "p", "changed": {}, "difference": clear})
    alone, *_ = read_parts({"parts": parts[:1]})
    assert (alone.tone, alone.p) == ("good", pytest.approx(0.0444, abs=1e-4))
    *others, certain = read_parts({"parts": parts})
    assert {part.tone for part in others} == {"open"}
    assert all(part.p == pytest.approx(4 * 0.0444, abs=4e-4) for part in others)
    assert "p = 0.18" in others[0].verdict
    assert certain.tone == "good"


def _contest(**means: float) -> dict[str, Any]:
    """A summary of alignx against systems of joint training; every difference has an interval of one point."""

    def minus(one: str, other: str) -> dict[str, float]:
        value = means[one] - means[other]
        return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 9}

    plain = [name for name in means if name in ("alignx", "joint", "joint_outcomes")]
    setting = {
        "systems": {
            name: {"mean_axis_score": {"mean": mean}, "one_adapter": name != "alignx"} for name, mean in means.items()
        },
        "differences": {rival: {name: minus(name, rival) for name in means if name != rival} for rival in plain},
    }
    return {"settings": {"": setting}}


def test_the_headline_compares_with_the_best_of_joint_training() -> None:
    assert headline(_contest(alignx=0.9, joint=0.5, joint_outcomes=0.7, alone=0.95)) == [
        "The best of joint training is better than alignx (alone: \u22125.0 points [\u22126.0, \u22124.0]).",
        "alignx is better than joint (+40.0 points [+39.0, +41.0]).",
        "alignx is better than joint_outcomes (+20.0 points [+19.0, +21.0]).",
    ]


def test_the_headline_names_no_rival_twice() -> None:
    told = headline(_contest(alignx=0.9, joint=0.5, joint_outcomes=0.7, alone=0.6))
    assert [sentence.partition(" (")[0] for sentence in told] == [
        "alignx is better than joint",
        "alignx is better than joint_outcomes",
    ]


def test_swept_keys_are_in_words_and_grey_lines_are_named() -> None:
    scores = {"alignx": SCORES["alignx"], **{f"variant {n}": SCORES["sum"] for n in range(9)}}
    settings = {f"routing.outcome.max_prompts={n}": scores for n in (8, 16)}
    found = texts(draw_ablation(summary(settings)))
    assert "max prompts (routing.outcome.max_prompts)" in found
    assert "grey lines: variant 7, variant 8" in found


def test_bars_of_a_sweep_are_t_intervals_over_the_seeds() -> None:
    assert _half_width({"std": 0.1, "values": [0.8, 0.9, 1.0]}) == pytest.approx(4.3027 * 0.1 / 3**0.5, abs=1e-4)
    assert _half_width({"std": None, "values": [0.8]}) == 0.0


@pytest.mark.parametrize(
    ("spread", "opening", "size"),
    [
        ({"mean": 0.17, "std": 0.02}, "Routing can matter here (go)", "wins 17.0 points \u00b1 2.0 over the seeds"),
        ({"mean": 0.04, "std": None}, "Routing cannot matter here (no-go)", "wins 4.0 points over"),
        ({"mean": None, "std": None}, "", ""),
        (None, "", ""),
    ],
)
def test_every_setting_says_whether_routing_can_matter(
    spread: dict[str, float | None] | None, opening: str, size: str
) -> None:
    text = go({"headroom": spread})
    assert text.partition(":")[0] == opening
    assert size in text
