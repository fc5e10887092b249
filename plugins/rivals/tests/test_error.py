"""The relative error between merges, and how wrong PEFT's linear merge is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from dense_for_tests import all_dense
from mocae.bank import load_peft
from mocae.errors import ConfigError
from mocae.merging import TaskVector, task_arithmetic
from mocae_rivals.consensus import ties
from mocae_rivals.linear_peft import linear_peft, linear_peft_error, relative_error
from tiny import ALL_LINEARS, tiny_adapter, tiny_llama, with_peft

Vectors = dict[str, TaskVector]


def test_linear_peft_is_what_peft_makes(adapters: dict[str, Path], vectors: Vectors) -> None:
    weights = {"a": 0.7, "twin": -0.4}
    model: PeftModel = with_peft(tiny_llama(), adapters["a"])
    model.load_adapter(adapters["twin"], adapter_name="twin")
    model.add_weighted_adapter(["default", "twin"], list(weights.values()), "merged", combination_type="linear")
    found = linear_peft({name: vectors[name] for name in weights}, weights=weights)
    assert len(found.modules) == 28
    for module in found.modules:
        expected = model.base_model.model.get_submodule(module).get_delta_weight("merged")
        torch.testing.assert_close(found.dense(module), expected.detach(), atol=1e-6, rtol=1e-5)


def test_errors_are_those_of_the_dense_differences(vectors: Vectors) -> None:
    a, b, c = (vectors[name] for name in "abc")
    trimmed = ties({"a": a}, density=0.5)
    for approximation in (a + 0.1 * b, trimmed):
        flat = [torch.cat([d.flatten() for d in all_dense(v, a).values()]) for v in (approximation, a)]
        expected = float((flat[0] - flat[1]).norm() / flat[1].norm())
        assert relative_error(approximation, a) == pytest.approx(expected, rel=1e-5)
    assert relative_error(a, a) == 0
    assert relative_error(0 * a, a) == 1
    assert relative_error(ties({"c": c}, density=1.0), a + c) == pytest.approx(a.norm() / (a + c).norm(), rel=1e-5)


@pytest.mark.parametrize(("n_experts", "expected"), [(1, 0.0), (2, 1.0), (3, 2**0.5)])
def test_peft_is_as_wrong_as_its_cross_terms(tmp_path: Path, n_experts: int, expected: float) -> None:
    model = tiny_llama(layers=2)
    independent = {
        str(seed): TaskVector.from_lora(
            load_peft(tiny_adapter(model, tmp_path / str(seed), seed=seed, r=4, targets=ALL_LINEARS))
        )
        for seed in range(n_experts)
    }
    weights = dict.fromkeys(independent, 1 / n_experts)
    error = linear_peft_error(independent, weights=weights)
    assert error == pytest.approx(expected, abs=0.05 if expected else 1e-6)
    exact = task_arithmetic(independent, weights=weights)
    assert error == relative_error(linear_peft(independent, weights=weights), exact)


def test_what_cannot_be_compared_is_refused(vectors: Vectors) -> None:
    a, b = vectors["a"], vectors["b"]
    with pytest.raises(ConfigError, match=r"the\s+ranks are {'a': \[4\], 'b': \[3\]}"):
        linear_peft_error({"a": a, "b": b})
    with pytest.raises(ConfigError, match="exact merge is 0"):
        relative_error(a, a - a)
