from __future__ import annotations

import pytest

from mocae.config import parse_recipe
from mocae.config.overrides import apply_override
from mocae.errors import ConfigError
from recipes_for_tests import small_recipe


@pytest.mark.parametrize(
    ("override", "place", "value"),
    [
        ("seed=7", ("seed",), 7),
        ("experts.r=16", ("experts", "r"), 16),
        ("experts.optimizer.learning_rate=5e-4", ("experts", "optimizer", "learning_rate"), 0.0005),
        ("base.revision=null", ("base", "revision"), None),
        ("routing.temperature=fitted", ("routing", "temperature"), "fitted"),
        ("axes.0.train.limit=10", ("axes", 0, "train", "limit"), 10),
        ("axes.honesty.train.limit=10", ("axes", 1, "train", "limit"), 10),
        ("axes.honesty.train.0.limit=10", ("axes", 1, "train", "0", "limit"), None),
        ("judges.pocket.options={a: b=c}", ("judges", 0, "options"), {"a": "b=c"}),
        ("systems.1=uniform", ("systems", 1), "uniform"),
        ("systems.alignx=uniform", ("systems", 2), "uniform"),
    ],
)
def test_sets_one_place(override: str, place: tuple[str | int, ...], value: object) -> None:
    data = small_recipe()
    if override == "axes.honesty.train.0.limit=10":
        data["axes"][1]["train"] = [data["axes"][1]["train"]]
        place, value = ("axes", 1, "train", 0, "limit"), 10
    assert apply_override(data, override) == place
    target: object = data
    for step in place:
        target = target[step]  # type: ignore[index]
    assert target == value


def test_a_list_of_one_source_is_that_source() -> None:
    data = small_recipe()
    data["axes"][0]["train"] = [data["axes"][0]["train"]]
    assert apply_override(data, "axes.0.train.limit=10") == ("axes", 0, "train", 0, "limit")
    assert parse_recipe(data).axes[0].train[0].limit == 10


def test_later_overrides_win() -> None:
    assert parse_recipe(small_recipe(), ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", r"--set seed: not a setting. Accepted: key=value"),
        ("=1", r"--set =1: not a setting"),
        ("experts..r=1", r"--set experts..r=1: not a setting"),
        ("axes.2.name=x", r"--set axes.2.name=x: unknown item of axes '2'. Known: '0', '1', 'helpfulness', 'honesty'"),
        ("axes.honest.name=x", r"unknown item of axes 'honest'.*Did you mean 'honesty'"),
        ("name.first=x", r"--set name.first=x: name is 'small' and has no part 'first'"),
        ("seed=[1", r"--set seed=\[1: line 1, column 3: not valid YAML"),
        ("experts.lerning_rate=1", r"--set experts.lerning_rate=1: experts.lerning_rate: unknown key 'lerning_rate'"),
        ("seed=-1", r"--set seed=-1: seed: got -1; it should be greater than or equal to 0"),
    ],
)
def test_refuses(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_recipe(small_recipe(), [override])
