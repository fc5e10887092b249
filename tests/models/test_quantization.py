"""A quantised base model with experts kept apart from it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from mocae.bank import ExpertBank, load_peft
from mocae.errors import ConfigError, ModelMismatchError
from mocae.experts import LoraSpec, Optimisation, finetune
from mocae.merging import TaskVector
from mocae.models import QUANTIZATIONS, load_base
from tiny import random_ids, tiny_adapter, tiny_llama, tiny_tokenizer


def shape() -> LlamaForCausalLM:
    """Return a model wide enough for blocks of 64 values."""
    return tiny_llama(layers=2, hidden=128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base")
    shape().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.mark.filterwarnings("ignore")  # the libraries' own, on every import
@pytest.mark.parametrize("name", QUANTIZATIONS)
def test_experts_are_added_to_the_quantised_linears(name: str, folder: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec(QUANTIZATIONS[name][0]) is None:
        pytest.skip(f"{QUANTIZATIONS[name][0]} is not installed")
    base = load_base(str(folder), dtype="fp32", device="cpu", quantization=name)
    linear = base.model.get_submodule("model.layers.1.self_attn.o_proj")
    experts = [load_peft(tiny_adapter(shape(), tmp_path / n, seed=i), name=n) for i, n in enumerate("ab")]
    ids, x = random_ids(2, 6), torch.randn(2, 3, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, plain = base.model(ids).logits, linear(x)
        bank = ExpertBank.attach(base.model, dict(zip("ab", experts, strict=True)))
        assert torch.equal(base.model(ids).logits, logits)
        alpha = torch.tensor([[0.7, 0.0], [-0.5, 1.0]])
        with bank.weights(alpha):
            mixed = linear(x)
        dense = torch.stack([TaskVector.from_lora(e).dense("model.layers.1.self_attn.o_proj") for e in experts])
        expected = plain + torch.einsum("bk,koi,bti->bto", alpha, dense, x)
        torch.testing.assert_close(mixed, expected, atol=1e-4, rtol=1e-4)
        with pytest.raises(ModelMismatchError, match="quantised"), bank.merged(alpha[0]):
            pass
        bank.detach()
        assert torch.equal(base.model(ids).logits, logits)


@pytest.mark.filterwarnings("ignore")
def test_an_expert_trains_on_a_base_in_four_bits(folder: Path, tmp_path: Path) -> None:
    """QLoRA: gradients flow through the nf4 linears to the adapter, which is a plain one and works in the bank."""
    if importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    from bitsandbytes.nn import Linear4bit

    base = load_base(str(folder), dtype="fp32", device="cpu", quantization="bnb-nf4")
    linear = base.model.get_submodule("model.layers.1.self_attn.o_proj")
    before, ids = linear.weight.detach().clone(), random_ids(2, 6)
    with torch.no_grad():
        plain = base.model(ids).logits
    record = finetune(
        base,
        [{"prompt": f"Q: {letter}?\nA:", "completion": " no"} for letter in "abcdefgh"],
        tmp_path,
        lora=LoraSpec(r=4, lora_alpha=8.0),
        optimisation=Optimisation(learning_rate=1e-2, epochs=6.0, batch_size=4, warmup_ratio=0.0, max_length=32),
        seed=0,
        label="expert",
        base_name="tiny",
    )
    assert record.last_loss < record.first_loss - 1.0
    assert isinstance(base.model.get_submodule("model.layers.1.self_attn.o_proj"), Linear4bit)
    assert torch.equal(linear.weight, before)
    with torch.no_grad():
        assert torch.equal(base.model(ids).logits, plain)
        bank = ExpertBank.attach(base.model, {"expert": load_peft(tmp_path)})
        with bank.weights(torch.ones(1)):
            assert (base.model(ids).logits - plain).abs().max() > 0.1


def test_an_unknown_or_missing_library_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"base.quantization: unknown quantisation 'int3'"):
        load_base(str(folder), dtype="fp32", device="cpu", quantization="int3")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"torchao is not installed; run: pip install 'mocae\[quantize\]'"):
        load_base(str(folder), dtype="fp32", device="cpu", quantization="torchao-int8")
