"""Bad input: what the fuzzer drives for minutes, for seconds; its seeds and arbitrary values."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mocae.cli.options import numbers
from mocae.config import parse_recipe
from mocae.errors import MocaeError
from mocae.judges.endpoint.parsers import PARSERS
from recipes_for_tests import small_recipe

FUZZ = Path(__file__).parents[2] / "fuzz"
SEEDS = sorted(FUZZ.glob("corpus/*/*"))


def _targets() -> dict[str, Callable[[bytes], None]]:
    spec = importlib.util.spec_from_file_location("fuzz_targets", FUZZ / "targets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Callable[[bytes], None]] = module.TARGETS
    return found


TARGETS = _targets()


def test_every_target_has_seeds() -> None:
    assert {path.parent.name for path in SEEDS} == set(TARGETS)


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_no_seed_is_more_than_an_error_of_ours(seed: Path) -> None:
    TARGETS[seed.parent.name](seed.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=200))
def test_no_bytes_are_more_than_an_error_of_ours(target: str, data: bytes) -> None:
    TARGETS[target](data)


def _refused(call: Callable[[], object]) -> str | None:
    """Return the message of an error of ours, None where there is none; any other error is a finding."""
    try:
        call()
    except MocaeError as error:
        return str(error)
    return None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = sorted(small_recipe())


@settings(max_examples=60, deadline=None)
@given(key=st.sampled_from(KEYS), value=JSON)
def test_any_value_at_any_key_is_accepted_or_refused_by_name(key: str, value: object) -> None:
    message = _refused(lambda: parse_recipe(small_recipe(**{key: value})))
    assert message is None or message.startswith("recipe: ")


@settings(max_examples=60, deadline=None)
@given(key=st.text(max_size=20), value=st.text(max_size=20))
def test_any_setting_is_applied_or_refused(key: str, value: str) -> None:
    message = _refused(lambda: parse_recipe(small_recipe(), [f"{key}={value}"]))
    assert message is None or "--set" in message or "recipe" in message


@settings(max_examples=100, deadline=None)
@given(name=st.text(min_size=1, max_size=10), number=st.floats() | st.text(max_size=8))
def test_numbers_are_finite_or_refused(name: str, number: object) -> None:
    found: dict[str, float] = {}
    message = _refused(lambda: found.update(numbers([f"{name}={number}"], "--steer") or {}))
    assert all(abs(value) < float("inf") for value in found.values()) if message is None else "--steer" in message


@settings(max_examples=100, deadline=None)
@given(reply=st.text(max_size=80), parser=st.sampled_from(sorted(PARSERS)))
def test_a_verdict_is_in_range_or_none(reply: str, parser: str) -> None:
    parsed = PARSERS[parser](reply)
    assert parsed is None or 0 <= parsed.score <= 1
