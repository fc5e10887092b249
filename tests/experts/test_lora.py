from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from mocae.errors import ArtifactError, ConfigError
from mocae.experts import LoraSpec, trainable_adapter
from mocae.models import LoadedBase
from tiny import ARCHITECTURES, LATENT_ATTENTION, random_ids, tiny_adapter, tiny_deepseek_v3, tiny_llama


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_linears_of_the_chosen_layers_are_adapted(architecture: str) -> None:
    model = ARCHITECTURES[architecture]()
    names = {name for name, _ in model.named_modules()}
    with trainable_adapter(model, LoraSpec(r=3, lora_alpha=6.0, from_layer=1)) as wrapped:
        trained = [name for name, p in wrapped.named_parameters() if p.requires_grad]
        assert len(trained) == 2 * 7  # A and B of q, k, v, o, gate, up, down
        assert all(".layers.1." in name and "lora_" in name for name in trained)
        assert all(p.dtype is torch.float32 for p in wrapped.parameters() if p.requires_grad)
    assert {name for name, _ in model.named_modules()} == names


def test_linears_that_peft_would_not_adapt_as_linears_are_refused() -> None:
    model = tiny_deepseek_v3()
    names = {name for name, _ in model.named_modules()}
    message = (
        r"target_modules .*'gate_proj'.* fused parameters .*set experts.target_modules to others, such as those of"
    )
    with pytest.raises(ConfigError, match=message), trainable_adapter(model, LoraSpec(r=3, lora_alpha=6.0)):
        pass
    spec = LoraSpec(r=3, lora_alpha=6.0, target_modules=LATENT_ATTENTION)
    with trainable_adapter(model, spec) as wrapped:
        assert sum(p.requires_grad for p in wrapped.parameters()) == 2 * 2 * 5
    assert {name for name, _ in model.named_modules()} == names


@pytest.mark.parametrize(("alpha", "use_rslora", "scaling"), [(8.0, False, 2.0), (5.5, False, 1.375), (6.0, True, 3.0)])
def test_scaling_is_alpha_over_r_whole_or_not(alpha: float, use_rslora: bool, scaling: float) -> None:
    spec = LoraSpec(r=4, lora_alpha=alpha, use_rslora=use_rslora, target_modules=("q_proj",))
    with trainable_adapter(tiny_llama(layers=1), spec) as wrapped:
        found = {module.scaling["default"] for module in wrapped.modules() if hasattr(module, "lora_A")}
    assert found == {scaling}


def test_whatever_is_put_on_the_model_is_taken_off(base: LoadedBase) -> None:
    model, untouched = base.model, copy.deepcopy(base.model)
    ids = random_ids(2, 6)
    before = model(ids).logits
    kept: list[str] = []
    handle = model.lm_head.register_forward_hook(lambda *_: kept.append("mine"))

    def wear_and_fail() -> None:
        with trainable_adapter(model, LoraSpec(r=2, lora_alpha=2.0)):
            model.enable_input_require_grads()
            model.activation_checkpointing_enable()
            model.forward = lambda *_, **__: None  # type: ignore[method-assign]
            model.config.use_cache = False
            model.generation_config.eos_token_id = 7
            model.train()
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        wear_and_fail()
    assert torch.equal(model(ids).logits, before)
    assert kept == ["mine"]  # a hook from before stays, and can still be removed
    handle.remove()
    model(ids)
    assert kept == ["mine"]
    modules = dict(untouched.named_modules())
    for name, module in model.named_modules():
        assert vars(module).keys() == vars(modules[name]).keys(), name
        assert not module._forward_hooks
        assert not module.training
    assert model.config.to_dict() == untouched.config.to_dict()
    assert model.generation_config.to_dict() == untouched.generation_config.to_dict()
    assert not model.is_activation_checkpointing


def test_what_the_model_does_not_have_is_refused(base: LoadedBase, tmp_path: Path) -> None:
    enter = lambda spec, **options: trainable_adapter(base.model, spec, **options).__enter__()  # noqa: E731
    with pytest.raises(ConfigError, match=r"experts.from_layer is 2; the model has decoder layers 0 to 1"):
        enter(LoraSpec(r=2, lora_alpha=2.0, from_layer=2))
    with pytest.raises(ConfigError, match=r"experts.target_modules \['wq'\] do not fit the model"):
        enter(LoraSpec(r=2, lora_alpha=2.0, target_modules=("wq",)))
    with pytest.raises(ArtifactError, match=r"empty: no adapter_config.json"):
        enter(LoraSpec(r=2, lora_alpha=2.0), start_from=tmp_path / "empty")
    assert not hasattr(base.model, "peft_config")


def test_an_adapter_that_does_not_fit_leaves_nothing_behind(base: LoadedBase, tmp_path: Path) -> None:
    folder = tiny_adapter(tiny_llama(layers=2, hidden=64), tmp_path / "wide")
    with (
        pytest.raises(RuntimeError, match="size mismatch"),
        trainable_adapter(base.model, LoraSpec(r=2, lora_alpha=2.0), start_from=folder),
    ):
        pass
    assert [name for name, _ in base.model.named_modules() if "lora" in name] == []
    assert base.model.state_dict().keys() == tiny_llama(layers=2).state_dict().keys()
