from __future__ import annotations

import random

import pytest

from mocae.evaluation import Bootstrap, difference, difference_over_seeds
from mocae.types import Answer, Example, Sample

AXES = ("help", "safe")
BOOT = Bootstrap(2000)
PROBES = {"help": ["task"], "safe": ["harmful", "benign"]}


def run(seed: int, rate: float) -> list[Sample]:
    """Twelve topics of two wordings for each kind of prompt; a share `rate` of the answers is acceptable."""
    rng = random.Random(seed)
    samples = []
    for axis in AXES:
        for probe in PROBES[axis]:
            for i in range(24):
                example = Example(f"{axis} {probe} {i}", axis, probe, group=f"{probe}{i // 2}")
                samples.append(Sample("x", Answer(example, ""), {}, rng.random() < rate))
    return samples


PAIRS = [(run(seed, 0.8), run(seed + 100, 0.4)) for seed in range(3)]


def test_value_and_runs_are_paired_differences() -> None:
    found = difference_over_seeds(PAIRS, AXES, boot=BOOT)
    each = [difference(first, second, AXES, boot=BOOT).value for first, second in PAIRS]
    assert found.by_seed == pytest.approx(each)
    assert found.value == pytest.approx(sum(value or 0 for value in each) / 3)
    assert found.n == 3 * 72


def test_the_interval_over_prompts_is_that_of_the_plain_bootstrap() -> None:
    plain = difference(*PAIRS[0], AXES, boot=BOOT)
    alone = difference_over_seeds(PAIRS[:1], AXES, boot=BOOT)
    assert alone.prompts_only == pytest.approx((plain.low, plain.high), abs=0.02)
    # The same answers in another run are no new evidence about prompts; runs that differ add to the interval.
    again = difference_over_seeds(PAIRS[:1] * 3, AXES, boot=BOOT)
    assert again.prompts_only == pytest.approx(alone.prompts_only, abs=0.02)
    found = difference_over_seeds(PAIRS, AXES, boot=BOOT)
    assert found.low is not None
    assert found.low < (found.prompts_only[0] or 0)
    assert found.high is not None
    assert found.high > (found.prompts_only[1] or 0)


def test_one_run_has_no_spread_over_seeds() -> None:
    found = difference_over_seeds(PAIRS[:1], AXES, boot=BOOT)
    assert (found.low, found.high) == found.prompts_only
    assert found.std is None


def test_without_scored_prompts_there_is_no_value() -> None:
    found = difference_over_seeds([([], [])], AXES, boot=BOOT)
    assert (found.value, found.low, found.by_seed, found.n) == (None, None, (None,), 0)
