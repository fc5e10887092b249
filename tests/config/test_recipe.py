from __future__ import annotations

import copy
from pathlib import Path

import pytest
from pydantic import ValidationError

from mocae.config import Recipe, parse_recipe
from mocae.errors import ConfigError
from recipes_for_tests import small_recipe


def refused(match: str, **changes: object) -> None:
    with pytest.raises(ConfigError, match=match):
        parse_recipe(small_recipe(**changes))


def test_one_source_is_wrapped_and_a_list_stays() -> None:
    values = small_recipe()
    listed = copy.deepcopy(values)
    for axis in listed["axes"]:
        axis["train"] = [axis["train"]]
    assert parse_recipe(values) == parse_recipe(listed)
    assert len(parse_recipe(values).axes[0].train) == 1


def test_calibration_may_be_absent() -> None:
    values = small_recipe()
    del values["axes"][0]["calibration"]
    assert parse_recipe(values).axes[0].calibration == ()


def test_a_system_is_a_name_or_a_mapping() -> None:
    values = small_recipe(
        systems=["base", {"name": "half", "policy": "static", "options": {"weights": {"honesty": 0.5}}}]
    )
    base, half = parse_recipe(values).systems
    assert (base.name, base.policy, base.options) == ("base", "base", {})
    assert (half.name, half.policy, half.options) == ("half", "static", {"weights": {"honesty": 0.5}})


def test_is_frozen() -> None:
    recipe = parse_recipe(small_recipe())
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 1  # type: ignore[misc]


def test_every_field_is_described() -> None:
    def undescribed(schema: dict[str, object], name: str) -> list[str]:
        properties = schema.get("properties", {})
        assert isinstance(properties, dict)
        return [f"{name}.{key}" for key, value in properties.items() if not value.get("description")]

    schema = Recipe.model_json_schema()
    found = undescribed(schema, "Recipe")
    for name, part in schema["$defs"].items():
        found += undescribed(part, name)
    assert found == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, r"recipe: seed: got -1; it should be greater than or equal to 0"),
        ({"seed": 2**32}, r"recipe: seed: got 4294967296; it should be less than or equal to 4294967295"),
        ({"experts": {"r": 10**30}}, r"recipe: experts.r: got a whole number of 31 digits; at most 2147483647"),
        ({"generation": {"max_new_tokens": 2**31}}, r"generation.max_new_tokens: got a whole number of 10 digits"),
        ({"seed": True}, r"recipe: seed: got True; it should be a valid integer"),
        ({"axes": []}, r"recipe: axes: got \(?\[?.*should have at least 1 item"),
        ({"name": "a/b"}, r"recipe: name: got 'a/b'"),
        ({"routing": {"temperature": 0}}, r"routing.temperature: got 0; it should be a number above 0, or 'fitted'"),
        (
            {"routing": {"temperature": "warm"}},
            r"routing.temperature: got 'warm'; it should be a number above 0, or",
        ),
        ({"routing": {"top_k": 3}}, r"routing.top_k: got 3; it should be at most the number of axes, 2"),
        (
            {"routing": {"outcome": {"weight": 0, "gating_weight": 0}}},
            r"routing.outcome.weight: got 0 with",
        ),
        ({"experts": {"r": 0}}, r"experts.r: got 0; it should be greater than 0"),
        ({"experts": {"target_modules": []}}, r"experts.target_modules: got \[\]; it should be 'all-linear'"),
        ({"experts": {"lora_dropout": 1.0}}, r"experts.lora_dropout: got 1.0; it should be less than 1"),
        (
            {"comparison": {"order": ["honesty"]}},
            r"comparison.order: got \['honesty'\]; it should name every axis",
        ),
        (
            {"base": {"model": "m", "shard": True, "quantization": "bnb-nf4"}},
            r"base.quantization: got 'bnb-nf4' with base.shard; packed weights cannot be cut",
        ),
        ({"systems": ["base", "base"]}, r"systems.1.name: 'base' is there twice"),
        ({"prompt_format": None}, r"prompt_format: got None"),
        (
            {"routing": {"features": "latent"}},
            r"routing.features: got 'latent'; this setting was removed",
        ),
        (
            {"routing": {"calibrators": {"fit_weights": True}}},
            r"routing.calibrators.fit_weights: got True; this setting was removed, what is left is False",
        ),
    ],
)
def test_refuses(changes: dict[str, object], message: str) -> None:
    refused(message, **changes)


def test_removed_settings_are_taken_at_the_value_that_is_left() -> None:
    calibrators = {"fit_weights": False, "fractal_score": "log_mass"}
    older = parse_recipe(small_recipe(routing={"features": "latent+projections", "calibrators": calibrators}))
    assert older == parse_recipe(small_recipe())


def test_two_axes_of_one_name_are_refused() -> None:
    axes = small_recipe()["axes"]
    axes[1]["name"] = "helpfulness"
    refused(r"axes.1.name: 'helpfulness' is there twice", axes=axes, systems=["base"])


def test_a_hash_range_the_wrong_way_round_is_refused() -> None:
    axes = small_recipe()["axes"]
    axes[0]["train"]["hash_range"] = [0.5, 0.2]
    refused(r"axes.0.train.0.hash_range: got \[0.5, 0.2\]; the low end should be below the high end", axes=axes)


def test_paths_start_from_data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOCAE_DATA_ROOT", raising=False)
    rooted = parse_recipe(small_recipe(data_root="data"))
    assert rooted.data_path(Path("a.json")) == Path("data/a.json")
    assert rooted.data_path(Path("/b.json")) == Path("/b.json")
    assert rooted.data_path(None) is None
    with pytest.raises(ConfigError, match=r"data_root: null, and MOCAE_DATA_ROOT is not set, but 'a.json' is relative"):
        parse_recipe(small_recipe()).data_path(Path("a.json"))


def test_a_run_without_a_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOCAE_BASE_MODEL", raising=False)
    recipe = parse_recipe(small_recipe(base={"model": None}))
    with pytest.raises(ConfigError, match=r"base.model: null, and MOCAE_BASE_MODEL is not set"):
        recipe.base.required_model()
