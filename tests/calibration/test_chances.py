from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mocae.calibration import AlignXRouter, CalibrationSet, FittedRouter
from mocae.errors import ArtifactError
from mocae.metrics import expected_calibration_error
from toy_router import CENTRES, Toy

Chance = Callable[[Tensor], Tensor]


def everyone_often(pooled: Tensor) -> Tensor:
    """Three experts that are each right 80 % of the time, whatever the prompt."""
    return torch.full((len(pooled), 3), 0.8)


def ability_varies(pooled: Tensor) -> Tensor:
    """Experts that can all do the easy prompts, and none of the hard ones."""
    return (4 * (pooled[:, 0] - pooled[:, 1])).sigmoid()[:, None].expand(-1, 3)


def asked(toy: Toy, chance: Chance, n: int, seed: int) -> CalibrationSet:
    pooled, labels = toy.draw(n, seed)
    acceptable = torch.rand(len(labels), 3, generator=torch.Generator().manual_seed(seed)) < chance(pooled)
    return CalibrationSet(pooled, acceptable, labels, [""] * len(labels))


def gap(fitted: FittedRouter, new: CalibrationSet) -> float:
    beliefs = fitted.router.beliefs(new.pooled)
    right = new.acceptable.gather(1, beliefs.alpha.argmax(1, keepdim=True))[:, 0]
    return expected_calibration_error(beliefs.confidence.clamp(0, 1).tolist(), right.tolist())


@pytest.mark.parametrize(("chance", "l2"), [(everyone_often, 1.0), (ability_varies, 1e-3)])
def test_several_can_and_nobody_can_are_said(toy: Toy, chance: Chance, l2: float) -> None:
    data, new = asked(toy, chance, 900, 5), asked(toy, chance, 2000, 6)
    ours = gap(toy.fit(data, l2=l2), new)
    assert ours <= 0.03
    assert gap(toy.fit(data, l2=1e-2, calibration="temperature"), new) > ours


def test_nobody_can_is_a_low_chance_of_every_expert(toy: Toy) -> None:
    data, axis = toy.set_of(80), 1
    hopeless = data.acceptable & (data.labels != axis)[:, None]
    fitted = toy.fit(replace(data, acceptable=hopeless), l2=1e-2)
    beliefs = fitted.router.beliefs(CENTRES)
    assert float(beliefs.confidence[axis]) < 0.2
    assert (beliefs.chances.sum(1)[[0, 2]] > 0.8).all()
    assert (beliefs.confidence[[0, 2]] > 0.8).all()


def test_weights_follow_the_chances(toy: Toy) -> None:
    fitted = toy.fit(toy.set_of(60, right=0.9, wrong=0.4), l2=1e-2)
    pooled = toy.set_of(50, seed=4).pooled
    alpha, chances, _ = fitted.router.beliefs(pooled)
    torch.testing.assert_close(alpha.sum(1), torch.ones(len(alpha)))
    assert torch.equal(alpha.argsort(1), chances.argsort(1))
    known = fitted.router.logits(pooled).sigmoid()
    torch.testing.assert_close(alpha, known / known.sum(1, keepdim=True))


def test_far_from_the_calibration_prompts_novelty_rises_and_every_chance_falls(toy: Toy) -> None:
    data = toy.set_of(80)
    fitted = toy.fit(data, l2=1e-2)
    novelty = fitted.router.novelty
    assert novelty is not None
    router = replace(fitted.router, novelty=novelty._replace(discount=torch.tensor(5.0)))
    away = CENTRES[:1] + torch.tensor([0.0, 1.0, 3.0, 10.0, 40.0])[:, None] * torch.eye(6)[3]
    beliefs = router.beliefs(away)
    assert beliefs.novelty.tolist() == sorted(beliefs.novelty.tolist())
    assert float(beliefs.novelty[0]) < 0.5
    assert beliefs.novelty[-2:].tolist() == [1.0, 1.0]
    plain = router.logits(away).sigmoid()
    torch.testing.assert_close(beliefs.chances[0], plain[0])  # a known prompt loses nothing
    assert (beliefs.chances[-1] < plain[-1]).all()
    assert torch.equal(beliefs.alpha.argmax(1), plain.argmax(1))  # and nobody's choice changes


def test_the_discount_is_learned_by_leaving_out_one_kind_after_another(toy: Toy) -> None:
    """Each expert is right on its own axis alone, so a kind that is left out is answered wrongly."""
    data = toy.set_of(60)
    fitted = toy.fit(data, l2=1e-2)
    easy = toy.fit(replace(data, acceptable=torch.ones_like(data.acceptable)), l2=1e-2)
    assert fitted.router.novelty is not None
    assert easy.router.novelty is not None
    assert float(fitted.router.novelty.discount) > 0.5
    assert float(easy.router.novelty.discount) < 0.01  # whoever is asked is right, known kind or not
    one_kind = toy.fit(replace(data, kinds=["all"] * len(data.labels)), l2=1e-2)
    assert one_kind.router.novelty is not None  # nothing to leave out: judged by the known prompts alone


def test_held_out_beliefs_are_those_of_known_prompts(toy: Toy) -> None:
    data = toy.set_of(60, right=0.8, wrong=0.2)
    beliefs = toy.fit(data, l2=1e-2).held_out_beliefs
    assert beliefs is not None
    assert float((beliefs.novelty > 0.95).float().mean()) == pytest.approx(0.05, abs=0.02)
    right = data.acceptable.gather(1, beliefs.alpha.argmax(1, keepdim=True))[:, 0]
    assert expected_calibration_error(beliefs.confidence.tolist(), right.tolist()) < 0.12


@pytest.mark.parametrize("calibration", ["chances", "temperature"])
def test_a_router_of_either_calibration_is_loaded_as_saved(toy: Toy, tmp_path: Path, calibration: str) -> None:
    router = toy.fit(toy.set_of(15, right=0.8, wrong=0.3), l2=1e-2, calibration=calibration).router
    router.save(tmp_path)
    loaded = AlignXRouter.load(tmp_path)
    pooled = toy.set_of(9, seed=5).pooled
    assert loaded.calibration == calibration
    assert (loaded.novelty is None) == (calibration == "temperature")
    for one, other in zip(loaded.beliefs(pooled), router.beliefs(pooled), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def as_version_2(folder: Path, calibration: str) -> None:
    text = (folder / "router.json").read_text()
    text = text.replace('"version": 4', '"version": 2, "projections": true, "fractal_score": "log_mass"').replace(
        '"calibration": "temperature"', f'"calibration": "{calibration}"'
    )
    (folder / "router.json").write_text(text)


def test_a_softmax_router_of_version_2_is_read_and_others_are_refused(toy: Toy, tmp_path: Path) -> None:
    router = toy.fit(toy.set_of(15), l2=1e-2, calibration="temperature").router
    router.save(tmp_path)
    as_version_2(tmp_path, "none")
    pooled = toy.set_of(9, seed=5).pooled
    assert torch.equal(AlignXRouter.load(tmp_path).probs(pooled), router.probs(pooled))
    router.save(tmp_path)
    as_version_2(tmp_path, "isotonic")
    with pytest.raises(ArtifactError, match=r"router version 2, this mocae reads version 4; run `mocae run` again"):
        AlignXRouter.load(tmp_path)
