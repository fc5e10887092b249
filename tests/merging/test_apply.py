"""A merge in a model equals the dense sum, and leaves the model bit for bit as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mocae.bank import ExpertBank, LoraPair
from mocae.errors import ModelMismatchError
from mocae.merging import ComputedDelta, TaskVector, applied, task_arithmetic
from tiny import random_ids, tiny_llama

Vectors = dict[str, TaskVector]


def _snapshot(model: nn.Module) -> dict[str, tuple[nn.Parameter, Tensor]]:
    return {name: (parameter, parameter.detach().clone()) for name, parameter in model.named_parameters()}


def _assert_unchanged(model: nn.Module, before: dict[str, tuple[nn.Parameter, Tensor]]) -> None:
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    for name, (parameter, value) in before.items():
        assert after[name] is parameter
        assert torch.equal(after[name], value)


def _delta(module: str, out: int, features: int) -> TaskVector:
    return TaskVector({module: (LoraPair(torch.ones(1, features), torch.ones(out, 1), scaling=1.0),)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_swapped_in_and_the_originals_back(vectors: Vectors, dtype: torch.dtype) -> None:
    model = tiny_llama().to(dtype)
    before, delta = _snapshot(model), task_arithmetic({name: vectors[name] for name in ("a", "b")})
    with applied(model, delta) as inside:
        assert inside is model
        for name, (_, value) in before.items():
            module = name.removesuffix(".weight")
            expected = (value.float() + delta.dense(module)).to(dtype) if module in delta.modules else value
            assert torch.equal(model.get_parameter(name), expected)
    _assert_unchanged(model, before)


def test_constant_weights_of_the_bank_are_the_merged_model(adapters: dict[str, Path], vectors: Vectors) -> None:
    model, ids, weights = tiny_llama(), random_ids(2, 6), {"a": 0.7, "b": -0.4, "c": 1.3}
    bank = ExpertBank.attach(model, {name: adapters[name] for name in weights})
    before = _snapshot(model)
    with torch.no_grad():
        with bank.weights(torch.tensor(list(weights.values()))):
            mixed = model(ids).logits
        with applied(model, task_arithmetic(vectors, weights=weights)):  # the bank is attached, but off
            torch.testing.assert_close(model(ids).logits, mixed, atol=1e-4, rtol=1e-4)
        _assert_unchanged(model, before)
        with bank.weights(torch.tensor(list(weights.values()))):
            assert torch.equal(model(ids).logits, mixed)


def test_the_originals_come_back_after_errors(vectors: Vectors) -> None:
    model = tiny_llama()
    before, a = _snapshot(model), vectors["a"]
    with pytest.raises(RuntimeError, match="in the body"), applied(model, a):
        raise RuntimeError("in the body")
    _assert_unchanged(model, before)

    def breaks(module: str) -> Tensor:
        if module == a.modules[3]:
            raise RuntimeError("in the merge")
        return a.dense(module)

    failing = ComputedDelta({module: a.shape(module) for module in a.modules}, breaks)
    with pytest.raises(RuntimeError, match="in the merge"), applied(model, failing):
        pass
    _assert_unchanged(model, before)


def test_merges_nest(vectors: Vectors) -> None:
    model, module = tiny_llama(), vectors["b"].modules[0]
    before = _snapshot(model)
    with applied(model, vectors["a"]), applied(model, vectors["b"]):
        expected = before[f"{module}.weight"][1] + vectors["a"].dense(module) + vectors["b"].dense(module)
        torch.testing.assert_close(model.get_submodule(module).weight.detach(), expected)
    _assert_unchanged(model, before)


def test_merges_that_do_not_fit_are_refused() -> None:
    model, q = tiny_llama(), "model.layers.0.self_attn.q_proj"
    cases = {
        "'model.layers.9.q', but in LlamaForCausalLM there is no such module": _delta("model.layers.9.q", 2, 2),
        "'model.norm', but in LlamaForCausalLM it is a LlamaRMSNorm": _delta("model.norm", 2, 2),
        r"\(out, in\) = \(32, 32\), the merge has \(3, 5\)": _delta(q, 3, 5),
    }
    before = _snapshot(model)
    for told, delta in cases.items():
        with pytest.raises(ModelMismatchError, match=told), applied(model, delta):
            pass
    _assert_unchanged(model, before)


def test_weights_nothing_can_be_merged_into_are_refused() -> None:
    q = "model.layers.0.self_attn.q_proj"
    model = tiny_llama()
    model.get_submodule(q).weight = nn.Parameter(torch.zeros(32, 32, dtype=torch.int8), requires_grad=False)
    with (
        pytest.raises(ModelMismatchError, match=rf"'{q}' is quantised \(torch.int8"),
        applied(model, _delta(q, 32, 32)),
    ):
        pass
    with pytest.raises(ModelMismatchError, match="meta device"), applied(model.to("meta"), _delta("lm_head", 300, 32)):
        pass
    tied = tiny_llama(tie_word_embeddings=True)
    with pytest.raises(ModelMismatchError, match="'lm_head' is tied"), applied(tied, _delta("lm_head", 300, 32)):
        pass
