from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mocae.errors import ArtifactError, ConfigError
from mocae.trinityx import TrinityXRouter


def states(rows: int = 2, tokens: int = 5) -> torch.Tensor:
    return torch.randn(rows, tokens, 32, generator=torch.Generator().manual_seed(1))


def test_weights_are_those_of_the_papers_formula(make_router: Any) -> None:
    router = make_router(random=True, gamma=(0.5, 1.0, 2.0), tau=0.7)
    hidden = states()
    z = hidden / (hidden.square().mean(-1, keepdim=True) + 1e-6).sqrt() @ router.weight[1].T
    alpha = torch.exp(z / 0.7) / torch.exp(z / 0.7).sum(-1, keepdim=True)
    expected = alpha * router.gamma / (alpha * router.gamma).sum(-1, keepdim=True)
    torch.testing.assert_close(router.fuse(router.alpha(hidden, 3)), expected)


def test_without_training_gamma_alone_decides(make_router: Any) -> None:
    router = make_router(gamma=(1.0, 2.0, 5.0))
    expected = torch.tensor([0.125, 0.25, 0.625]).expand(2, 5, 3)
    torch.testing.assert_close(router.fuse(router.alpha(states(), 2)), expected)


def test_gamma_is_exactly_a_bias(make_router: Any) -> None:
    important, plain = (make_router(random=True, gamma=gamma, tau=0.7) for gamma in ((0.5, 1.0, 2.0), (1.0, 1.0, 1.0)))
    plain.load_state_dict(important.state_dict() | {"gamma": torch.ones(3)})
    with torch.no_grad():
        plain.bias += 0.7 * important.gamma.log()
    both = [router.fuse(router.alpha(states(), 3)) for router in (important, plain)]
    torch.testing.assert_close(*both)


def test_gamma_is_a_ratio(make_router: Any) -> None:
    one, ten = make_router(random=True, gamma=(1.0, 2.0, 3.0)), make_router(random=True, gamma=(10.0, 20.0, 30.0))
    alpha = one.alpha(states(), 2)
    torch.testing.assert_close(one.fuse(alpha), ten.fuse(alpha))


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_top_k_keeps_the_largest_and_sums_to_one(make_router: Any, top_k: int) -> None:
    router, whole = make_router(random=True, top_k=top_k), make_router(random=True)
    alpha = router.alpha(states(), 2)
    kept, all_of_them = router.fuse(alpha), whole.fuse(alpha)
    assert ((kept > 0).sum(-1) == top_k).all()
    assert (kept.argmax(-1) == all_of_them.argmax(-1)).all()
    torch.testing.assert_close(kept.sum(-1), torch.ones(2, 5))
    if top_k == 1:
        assert set(kept.flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("top_k", [1, 2])
def test_pruned_experts_learn_as_if_they_were_in_use(make_router: Any, top_k: int) -> None:
    values = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(2))

    def gradient(**options: Any) -> torch.Tensor:
        router = make_router(random=True, gamma=(1.0, 2.0, 3.0), **options).requires_grad_(True)
        (router.fuse(router.alpha(states(), 2)) * values).sum().backward()
        return router.weight.grad

    assert gradient().abs().max() > 0.1
    torch.testing.assert_close(gradient(top_k=top_k), gradient())


def test_the_scale_of_hidden_states_does_not_matter(make_router: Any) -> None:
    router = make_router(random=True)
    torch.testing.assert_close(router.alpha(100 * states(), 2), router.alpha(states(), 2), atol=1e-4, rtol=1e-4)


def test_a_gain_of_zero_changes_nothing(make_router: Any) -> None:
    hidden = states()
    assert torch.equal(make_router(norm=True).renormalise(hidden, 2), hidden)
    assert make_router(norm=False).renormalise(hidden, 2) is hidden


def test_a_gain_adds_the_normal_output(make_router: Any) -> None:
    router, hidden = make_router(norm=True), states()
    router.gain[0].fill_(0.5)
    normal = (hidden - hidden.mean(-1, keepdim=True)) / (hidden.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(router.renormalise(hidden, 2), hidden + 0.5 * normal)
    assert torch.equal(router.renormalise(hidden, 3), hidden)


@pytest.mark.parametrize("gamma", [(1.0, 0.0, 1.0), (1.0, -1.0, 1.0), (float("nan"), 1.0, 1.0)])
def test_importance_that_is_not_positive_is_refused(make_router: Any, gamma: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r"gamma is \[.*one positive number an expert is needed \(a, b, c\)"):
        make_router(gamma=gamma)


@pytest.mark.parametrize("top_k", [0, 4])
def test_a_top_k_outside_of_the_experts_is_refused(make_router: Any, top_k: int) -> None:
    with pytest.raises(ConfigError, match=f"top_k is {top_k}; 1 to 3 experts"):
        make_router(top_k=top_k)


@pytest.mark.parametrize("options", [{}, {"tau": 0.3, "top_k": 2, "norm": True}])
def test_saved_and_loaded_is_the_same(make_router: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    router = make_router(random=True, gamma=(1.0, 2.0, 3.0), **options)
    router.save(tmp_path)
    loaded = TrinityXRouter.load(tmp_path)
    for name in ("experts", "layers", "tau", "top_k"):
        assert getattr(loaded, name) == getattr(router, name)
    assert loaded.state_dict().keys() == router.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in router.state_dict().items())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def damage_json(folder: Path) -> None:
    (folder / "trinityx.json").write_text("{", encoding="utf-8")


def damage_tensors(folder: Path) -> None:
    path = folder / "trinityx.safetensors"
    path.write_bytes(path.read_bytes()[:-40])


def other_shape(folder: Path) -> None:
    record = json.loads((folder / "trinityx.json").read_text(encoding="utf-8"))
    (folder / "trinityx.json").write_text(json.dumps(record | {"hidden_size": 16}), encoding="utf-8")


def remove(folder: Path) -> None:
    (folder / "trinityx.safetensors").unlink()


@pytest.mark.parametrize("damage", [damage_json, damage_tensors, other_shape, remove])
def test_a_damaged_router_is_refused(make_router: Any, tmp_path: Path, damage: Any) -> None:
    make_router().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(ArtifactError, match=r"(cannot be read|damaged) .*(again|place)") as caught:
        TrinityXRouter.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_another_version_is_refused(make_router: Any, tmp_path: Path) -> None:
    make_router().save(tmp_path)
    record = json.loads((tmp_path / "trinityx.json").read_text(encoding="utf-8"))
    (tmp_path / "trinityx.json").write_text(json.dumps(record | {"version": 99}), encoding="utf-8")
    with pytest.raises(ArtifactError, match="this mocae reads version 1"):
        TrinityXRouter.load(tmp_path)
