from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from mocae.config import parse_recipe
from mocae.errors import ConfigError
from mocae.pipelines.plan import plan
from recipes_for_tests import small_recipe

SHAPE = {
    "model_type": "llama",
    "vocab_size": 50,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def planned(*settings: str, shape: dict[str, Any] | None = None, **changes: Any) -> Any:
    values = small_recipe(base={"model": None, "dtype": "fp32", "shape": shape or SHAPE}, **changes)
    return plan(parse_recipe(values, settings))


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MOCAE_DATA_ROOT", "MOCAE_BASE_MODEL"):
        monkeypatch.delenv(variable, raising=False)


def test_parameters_are_those_of_the_model() -> None:
    base = planned().base
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    assert base.n_parameters == sum(p.numel() for p in model.parameters())
    assert base.n_matmul == base.n_parameters - model.model.embed_tokens.weight.numel()
    layer = sum(p.numel() for p in model.model.layers[0].parameters())
    assert (base.n_layers, base.from_layer) == (3, 1)
    assert base.n_matmul_above == base.n_matmul - layer
    assert base.cache_values == 2 * 3 * 1 * 4
    assert base.origin == "base.shape"


def test_a_tied_head_counts_once_and_is_multiplied() -> None:
    base = planned(shape=SHAPE | {"tie_word_embeddings": True}).base
    assert base.n_matmul == base.n_parameters
    assert base.n_parameters == planned().base.n_parameters - 50 * 8


def test_adapters_are_those_peft_would_make() -> None:
    # One layer: q 8x8, k and v 4x8, o 8x8, gate and up 12x8, down 8x12; two layers are adapted.
    per_rank = 2 * ((8 + 8) + 2 * (4 + 8) + (8 + 8) + 2 * (12 + 8) + (8 + 12))
    assert planned("experts.r=3").experts[0].n_parameters == 3 * per_rank
    assert planned("experts.r=3", "experts.target_modules=[q_proj]").experts[0].n_parameters == 3 * 2 * (8 + 8)


def test_costs_are_those_worked_by_hand() -> None:
    made = planned(
        "experts.r=2", "experts.max_length=10", "experts.optimizer.epochs=1.5", "experts.optimizer.batch_size=4"
    )
    base, expert = made.base, made.experts[0]
    assert (expert.n_rows, expert.n_tokens) == (20, 300)
    assert expert.flops == 300 * (2 * base.n_matmul + 2 * base.n_matmul_above + 6 * expert.n_parameters)
    assert made.n_tokens == 600
    assert made.full_finetuning_flops == 6 * base.n_matmul * 600
    assert made.training_memory_bytes == (
        4 * base.n_parameters + 16 * expert.n_parameters + 40 * 2 * 17 * 8 * 4 + 40 * 50 * 3 * 4
    )
    context = 10 + 64
    assert made.serving_memory_bytes == 4 * (
        base.n_parameters + 2 * expert.n_parameters + 16 * context * base.cache_values
    )
    assert made.bytes_per_token == 4 * (base.n_matmul + 2 * expert.n_parameters + context * base.cache_values)


def test_from_layer_0_is_the_usual_rule() -> None:
    made = planned("experts.from_layer=0")
    base, expert = made.base, made.experts[0]
    assert expert.flops == expert.n_tokens * (4 * base.n_matmul + 6 * expert.n_parameters)


def test_rivals_have_the_rank_of_all_experts_together() -> None:
    made = planned(systems=["base", "joint", "sequential"])
    first, second, joint, sequential = made.experts
    assert (joint.name, sequential.name) == ("joint", "sequential")
    assert joint.n_parameters == sequential.n_parameters == first.n_parameters + second.n_parameters
    assert joint.n_tokens == sequential.n_tokens == first.n_tokens + second.n_tokens


def test_mixtures_count_what_they_train() -> None:
    made = planned(systems=["base", "trinityx", "xlora", "arrow", "h3fusion"])
    own = {expert.name: expert for expert in made.experts[2:]}
    assert list(own) == ["h3fusion", "trinityx", "xlora"]
    block = 3 * 8 * 12  # gate, up and down of one layer; layers 1 and 2 hold experts, two axes
    assert own["h3fusion"].n_parameters == 2 * 2 * block + 2 * 2 * 8
    assert own["trinityx"].n_parameters == 2 * 2 * 8 * 3 * (8 + 12) + 2 * 2 * (8 + 1)  # rank 8
    assert own["xlora"].n_parameters == 2 * (8 + 1)
    assert own["xlora"].n_tokens == 40 * 512
    assert own["h3fusion"].n_tokens == 4 * own["xlora"].n_tokens
    assert own["xlora"].flops is not None


def test_rows_that_are_not_here_are_bounded_by_the_limit() -> None:
    values = small_recipe(base={"model": None, "shape": SHAPE})
    values["axes"][0]["train"] = {"source": "alpaca", "path": "not/here.json", "limit": 7}
    assert [expert.n_rows for expert in plan(parse_recipe(values)).experts] == [7, 20]
    del values["axes"][0]["train"]["limit"]
    made = plan(parse_recipe(values))
    assert made.experts[0].n_tokens is None
    assert (made.n_tokens, made.flops, made.full_finetuning_flops) == (None, None, None)
    assert made.experts[1].n_rows == 20


def test_rows_of_a_file_are_counted(tmp_path: Path) -> None:
    rows = [{"instruction": f"Say {i}.", "input": "", "output": str(i)} for i in range(5)]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    values = small_recipe(base={"model": None, "shape": SHAPE}, data_root=str(tmp_path))
    values["axes"][0]["train"] = {"source": "alpaca", "path": "rows.json", "limit": 7}
    assert plan(parse_recipe(values)).experts[0].n_rows == 5


def test_a_folder_comes_before_the_shape(tmp_path: Path) -> None:
    LlamaConfig(**(SHAPE | {"num_hidden_layers": 5})).save_pretrained(tmp_path)
    values = small_recipe(base={"model": str(tmp_path), "shape": SHAPE})
    base = plan(parse_recipe(values)).base
    assert (base.origin, base.n_layers) == ("config", 5)


def test_is_json() -> None:
    made = planned()
    assert json.loads(json.dumps(made.to_dict()))["base"]["n_layers"] == 3


@pytest.mark.parametrize(
    ("base", "settings", "message"),
    [
        ({"model": None}, [], r"base.model: base.model is null. A plan needs the architecture: give a folder"),
        ({"model": "no/such"}, [], r"base.model: 'no/such' is neither a folder with config.json nor in the hub cache"),
        ({"model": None, "shape": {"hidden_size": 8}}, [], r"base.shape: the key 'model_type' is missing"),
        ({"model": None, "shape": {"model_type": "lama"}}, [], r"base.shape: not an architecture transformers knows"),
        (
            {"model": None, "shape": SHAPE | {"hiden_size": 8}},
            [],
            r"base.shape: unknown key 'hiden_size'.*Did you mean 'hidden_size'",
        ),
        (
            {"model": None, "shape": SHAPE},
            ["experts.from_layer=3"],
            r"experts.from_layer: got 3, but the model has 3 layers; accepted are 0 to 2",
        ),
        (
            {"model": None, "shape": SHAPE},
            ["experts.target_modules=[q_prj]"],
            r"experts.target_modules: unknown module 'q_prj'.*Did you mean 'q_proj'",
        ),
    ],
)
def test_refuses(base: dict[str, Any], settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(parse_recipe(small_recipe(base=base), settings))
