from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mocae.calibration import AlignXRouter
from mocae.calibration.router import Standardiser
from mocae.errors import ArtifactError, ModelMismatchError
from toy_router import Toy


@pytest.fixture(scope="module")
def router(toy: Toy) -> AlignXRouter:
    return toy.fit(toy.set_of(12, right=0.9, wrong=0.2), l2=1e-2).router


@pytest.fixture
def folder(router: AlignXRouter, tmp_path: Path) -> Path:
    router.save(tmp_path)
    return tmp_path


def test_what_is_loaded_is_what_was_saved_bit_for_bit(toy: Toy, router: AlignXRouter, folder: Path) -> None:
    loaded = AlignXRouter.load(folder)
    for name in ("axes", "lambdas", "temperature", "layer", "pool"):
        assert getattr(loaded, name) == getattr(router, name)
    for part in ("latent", "fractal", "natural"):
        for one, other in zip(getattr(loaded, part), getattr(router, part), strict=True):
            assert torch.equal(one, other)
    pooled = toy.set_of(9, seed=5).pooled
    assert torch.equal(loaded.probs(pooled), router.probs(pooled))
    again = folder / "again"
    again.mkdir()
    loaded.save(again)
    for name in ("router.json", "router.safetensors"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_a_prompt_is_routed_alike_alone_and_in_a_batch(toy: Toy, router: AlignXRouter) -> None:
    pooled = toy.set_of(20, seed=5).pooled
    alone = torch.cat([router.probs(row[None]) for row in pooled])
    torch.testing.assert_close(router.probs(pooled), alone, atol=1e-6, rtol=1e-5)


def test_hidden_states_of_another_size_are_refused(router: AlignXRouter) -> None:
    with pytest.raises(ModelMismatchError, match=r"reads 6 pooled values a prompt, got 7; .*features.pool"):
        router.probs(torch.zeros(1, 7))


def test_a_column_that_does_not_vary_becomes_zero() -> None:
    scaler = Standardiser.fit(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    assert scaler(torch.tensor([[5.0, 100.0]])).tolist() == [[3.0, 0.0]]


def changed_record(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        record = json.loads((folder / "router.json").read_text())
        record.update(changes)
        (folder / "router.json").write_text(json.dumps({k: v for k, v in record.items() if v != "absent"}))

    return change


def changed_tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(str(folder / "router.safetensors"))
        new = change(tensors.pop(name))
        save_file(tensors | ({} if new is None else {name: new}), str(folder / "router.safetensors"))

    return apply


def cut(folder: Path) -> None:
    path = folder / "router.safetensors"
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "damaged"),
        (lambda folder: (folder / "router.safetensors").unlink(), "No such file"),
        (lambda folder: (folder / "router.json").unlink(), "No such file"),
        (lambda folder: (folder / "router.json").write_text("{"), "not JSON"),
        (lambda folder: (folder / "router.json").write_text("[]"), "the whole"),
        (changed_record(layer="absent"), "layer: Field required"),
        (changed_record(layer=2.5), "layer: "),
        (changed_record(layer="2"), "layer: "),
        (changed_record(lambdas=[1.0]), "lambdas: "),
        (changed_record(axes=["helpful", "honest"]), "for 2 axes"),
        (changed_record(temperature=0.0), "temperature: "),
        (changed_record(temperature=-1.0), "temperature: "),
        (changed_tensor("novelty.unit", lambda t: None), "KeyError: 'novelty.unit'"),
        (changed_tensor("bias", lambda t: None), "KeyError: 'bias'"),
        (changed_tensor("latent.mean", lambda t: None), r"KeyError: 'latent.mean'"),
        (changed_tensor("bias", lambda t: t * torch.nan), "nan"),
        (changed_tensor("weight", lambda t: t[:, 1:].contiguous()), "shapes cannot be multiplied"),
        (changed_tensor("natural.means", lambda t: t[:2].contiguous()), "Error"),
    ],
)
def test_damaged_files_are_refused(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder)
    with pytest.raises(
        ArtifactError, match=f"(?s){folder}: the router cannot be read .*{message}.*run `mocae run` again"
    ):
        AlignXRouter.load(folder)


def test_another_version_is_refused(folder: Path) -> None:
    changed_record(version=7)(folder)
    with pytest.raises(ArtifactError, match=r"router.json: router version 7, this mocae reads version 4"):
        AlignXRouter.load(folder)


def test_a_router_of_the_version_before_is_read_where_its_choices_are_left(
    toy: Toy, router: AlignXRouter, folder: Path
) -> None:
    changed_record(version=3, projections=True, fractal_score="log_mass")(folder)
    pooled = toy.set_of(9, seed=5).pooled
    assert torch.equal(AlignXRouter.load(folder).probs(pooled), router.probs(pooled))
    changed_record(version=3, projections=True, fractal_score="dimension")(folder)
    with pytest.raises(ArtifactError, match=r"router version 3, this mocae reads version 4; run `mocae run` again"):
        AlignXRouter.load(folder)
