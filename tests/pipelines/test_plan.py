from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl import SFTTrainer

from memory_for_tests import SIZES, measure
from mocae.config import load_recipe, parse_recipe
from mocae.errors import ConfigError
from mocae.experts import LoraSpec, Optimisation, finetune
from mocae.models import LoadedBase
from mocae.pipelines.plan import plan
from recipes_for_tests import small_recipe
from tiny import tiny_tokenizer

ROOT = Path(__file__).parents[2]
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
    values = small_recipe(base={"model": None, "dtype": "fp32", "device": "cpu", "shape": shape or SHAPE}, **changes)
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


def test_the_page_on_scale_says_what_its_command_prints() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8").partition("## 70 B and many axes")[2]
    command = re.search(r"mocae plan (\S+)((?: +--set \S+| +\\\n)+)", page)
    assert command is not None
    settings = [word for word in shlex.split(command[2]) if word not in ("--set", "\n")]
    for where, more in (("q, v", []), ("all linears", ["experts.target_modules=all-linear"])):
        told = plan(load_recipe(ROOT / command[1], [*settings, *more]))
        bank = sum(expert.n_parameters for expert in told.experts)
        memory = (told.training_memory_bytes, told.serving_memory_bytes, told.bytes_per_token)
        cells = [f"K = 3, rank 64 on {where}", f"{told.experts[0].n_parameters / 1e6:.0f} M", f"{2 * bank / 1e9:.1f}"]
        cells += [f"{size / 1e9:.0f}" for size in memory] + [f"{told.disk_bytes / 1e9:.1f}"]
        assert f"| {' | '.join(cells)} |" in page


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
    assert made.device == "cpu"
    kept = 2 * (8 * 8 + 2 * (12 + 12)) * 4  # two layers: hidden vectors, gate and up before and after what follows
    weights = 4 * base.n_parameters + 16 * expert.n_parameters + 40 * 50 * 4 * 8.25
    assert made.training_memory_bytes == weights + 40 * kept
    dropped = 2 * (4 * 8 + 2 * 8 + 12) * 5  # inputs of q, k, v, o; gate, up; down: once more, and a mask of bools
    more = planned("experts.r=2", "experts.max_length=10", "experts.optimizer.batch_size=4", "experts.lora_dropout=0.1")
    assert more.training_memory_bytes == weights + 40 * (kept + dropped)
    context = 10 + 64
    assert made.serving_memory_bytes == 4 * (
        base.n_parameters + 2 * expert.n_parameters + 16 * context * base.cache_values
    )
    assert made.bytes_per_token == 4 * (base.n_matmul + 2 * expert.n_parameters + context * base.cache_values)


def test_the_backward_pass_keeps_what_the_plan_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = SHAPE | {"hidden_size": 64, "intermediate_size": 160, "vocab_size": 300, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in shape.items() if k != "model_type"}))
    frozen = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in frozen:
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)  # held, so that no place is used twice
        return tensor

    compute: Callable[..., Any] = SFTTrainer.compute_loss

    def watched(*given: Any, **options: Any) -> Any:
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            return compute(*given, **options)

    monkeypatch.setattr(SFTTrainer, "compute_loss", watched)
    finetune(
        LoadedBase(model, tiny_tokenizer()),
        [{"prompt": f"Q: {i}", "completion": " word" * 20} for i in range(4)],
        tmp_path,
        lora=LoraSpec(r=1, lora_alpha=2.0, from_layer=1),
        optimisation=Optimisation(learning_rate=1e-3, epochs=1.0, batch_size=4, max_length=32),
        seed=0,
        label="kept",
        base_name="random",
    )
    sizes = ("experts.r=1", "experts.max_length=32", "experts.optimizer.batch_size=4")
    made = planned(*sizes, shape=shape)
    loss = 4 * 32 * 300 * 4 * 8.25  # made and let go tile by tile: not kept
    expected = made.training_memory_bytes - 4 * made.base.n_parameters - 16 * made.experts[0].n_parameters - loss
    assert sum(t.untyped_storage().nbytes() for t in kept.values()) == pytest.approx(expected, rel=0.15)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resident memory is read from Linux")
@pytest.mark.parametrize("settings", [("39M",), ("95M",), ("135M", "base.dtype=bf16", "experts.r=16")], ids=str)
def test_the_plan_is_near_what_a_training_takes(settings: tuple[str, ...]) -> None:
    assert abs(measure(SIZES[settings[0]], *settings[1:]).off) < 0.15


def test_an_accelerator_keeps_one_vector_a_layer_and_one_layer_whole() -> None:
    sizes = ("experts.r=2", "experts.max_length=10", "experts.optimizer.batch_size=4", "experts.lora_dropout=0.0")
    on_cpu = planned(*sizes)
    made = planned(*sizes, "base.device=cuda", "base.dtype=bf16")
    weights = 2 * made.base.n_parameters + 16 * made.experts[0].n_parameters
    layer = (8 * 8 + 2 * (12 + 12)) * 2 + (6 * 8 + 12) * 4  # bf16, and the adapters' inputs in fp32
    assert made.training_memory_bytes == weights + 40 * (2 * 8 * 2 + layer) + 40 * 32768 * 2
    assert (made.device, on_cpu.device) == ("cuda", "cpu")


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
    made = planned(systems=["base", "trinityx"])
    own = {expert.name: expert for expert in made.experts[2:]}
    assert list(own) == ["trinityx"]
    # Layers 1 and 2 hold experts, two axes.
    assert own["trinityx"].n_parameters == 2 * 2 * 8 * 3 * (8 + 12) + 2 * 2 * (8 + 1)  # rank 8
    assert own["trinityx"].n_tokens == 4 * 40 * 512
    assert own["trinityx"].flops is not None


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
