"""Options of what this package brings, checked before a run."""

from __future__ import annotations

from typing import Any

import pytest

from mocae.config import parse_recipe
from mocae.errors import ConfigError
from mocae.pipelines.check import validate
from mocae.pipelines.plan import plan
from recipes_for_tests import small_recipe


def check(*systems: Any, **changes: Any) -> list[str]:
    return validate(parse_recipe(small_recipe(systems=list(systems), **changes)), where="x.yaml")


@pytest.mark.parametrize(
    ("system", "message"),
    [
        (
            {"policy": "merge:tiers"},
            r"x.yaml: systems.0.policy: unknown merge method 'tiers'.*Did you mean 'ties'",
        ),
        (
            {"policy": "merge:ties", "options": {"denstiy": 0.5}},
            r"x.yaml: systems.0.options: merge method 'ties': unknown option 'denstiy'.*Did you mean 'density'",
        ),
        ({"policy": "merge:lox"}, r"systems.0.options: merge method 'lox': option '\w+' is required"),
        (
            {"policy": "merge:hma", "options": {"blocks": [{"honest": 1.0}], "boundaries": []}},
            r"systems.0.options: unknown expert 'honest'",
        ),
        ({"policy": "xlora", "options": {"depth": 2}}, r"systems.0.options.depth: unknown option of 'xlora' 'depth'"),
        ({"policy": "arrow", "options": {"subtract": "mean"}}, r"systems.0.options.subtract: .*'joint'; got 'mean'"),
        ({"policy": "h3fusion", "options": {"gating": -1.0}}, r"systems.0.options.gating: .*got -1.0"),
    ],
)
def test_options_that_do_not_fit_are_refused(system: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check({"name": "rival", **system})


@pytest.mark.parametrize(
    "system",
    [
        {"policy": "merge:slerp", "options": {"t": 0.5, "experts": ["honesty", "helpfulness"]}},
        {"policy": "merge:hma", "options": {"blocks": [{"honesty": 1.0}, {"helpfulness": 1.0}], "boundaries": [2]}},
        {"policy": "h3fusion", "options": {"train_experts": False, "expert_epochs": 1}},
        {"policy": "arrow", "options": {"subtract": "joint", "top_k": 1}},
        {"policy": "xlora", "options": {"layerwise_scalings": True, "max_rows": 10}},
    ],
)
def test_options_that_fit_are_accepted(system: dict[str, Any]) -> None:
    assert check({"name": "rival", **system}) == []


@pytest.mark.parametrize("policy", ["merge:ties", "hma", "xlora", "arrow", "h3fusion"])
def test_a_base_that_is_cut_is_refused(policy: str) -> None:
    message = rf"x.yaml: systems.1.policy: '{policy}' needs every weight of the base model whole, and base"
    options = {"density": 0.5} if policy == "merge:ties" else {}
    with pytest.raises(ConfigError, match=message):
        check("base", {"name": policy, "policy": policy, "options": options}, base={"model": "pocket", "shard": True})


def test_mixtures_count_what_they_train() -> None:
    shape = {
        "model_type": "llama",
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 32,
    }
    systems = ["base", "xlora", "arrow", "h3fusion", "hma"]
    made = plan(parse_recipe(small_recipe(base={"model": None, "shape": shape}, systems=systems)))
    own = {expert.name: expert for expert in made.experts[2:]}
    assert list(own) == ["h3fusion", "xlora"]
    block = 3 * 8 * 12  # gate, up and down of one layer; layers 1 and 2 hold experts, two axes
    assert own["h3fusion"].n_parameters == 2 * 2 * block + 2 * 2 * 8
    assert own["xlora"].n_parameters == 2 * (8 + 1)
    assert own["xlora"].n_tokens == 40 * 512
    assert own["h3fusion"].n_tokens == 4 * own["xlora"].n_tokens
    assert own["xlora"].flops is not None
