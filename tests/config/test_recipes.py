"""Every recipe that ships, without network, data or weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from mocae.config import Recipe, dump_recipe, load_recipe
from mocae.pipelines.check import validate
from mocae.pipelines.plan import plan

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))

N_PARAMETERS = {
    "llama-2-7b": 6_738_415_616,
    "mistral-7b": 7_241_732_096,
    "gemma-7b": 8_537_680_896,
    "deepseek-7b": 6_910_365_696,
    "qwen3-0.6b": 596_049_920,
    "smollm2-135m": 134_515_008,
}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MOCAE_DATA_ROOT", "MOCAE_BASE_MODEL"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(params=RECIPES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    found = request.param
    assert isinstance(found, Path)
    return found


def test_there_are_recipes() -> None:
    assert {"pocket", "real-small", *N_PARAMETERS} <= {path.stem for path in RECIPES}


def test_is_valid_and_called_like_its_file(path: Path) -> None:
    recipe = load_recipe(path)
    validate(recipe)
    assert recipe.name == path.stem


def test_opens_with_the_command_that_runs_it(path: Path) -> None:
    opening = path.read_text(encoding="utf-8").split("name:")[0]
    if path.stem.endswith(("-ablation", "-curves")):
        out = path.stem.removeprefix("pocket-")
        assert f"mocae ablate recipes/{path.name} --seeds 3 --out out/{out}" in opening
    else:
        assert f"mocae run recipes/{path.name} --out out/{path.stem}" in opening


def test_is_the_same_after_dump_and_load(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    (tmp_path / "dumped.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "dumped.yaml") == recipe


def test_can_be_planned_offline(path: Path) -> None:
    made = plan(load_recipe(path))
    assert made.flops is not None
    assert made.flops > 0
    if path.stem in N_PARAMETERS:
        assert made.base.n_parameters == N_PARAMETERS[path.stem]


@pytest.mark.parametrize("name", ["llama-2-7b", "mistral-7b", "gemma-7b", "deepseek-7b"])
def test_settings_of_the_papers(name: str) -> None:
    recipe: Recipe = load_recipe(FOLDER / f"{name}.yaml")
    experts = recipe.experts
    assert (experts.r, experts.lora_alpha, experts.lora_dropout, experts.max_length) == (64, 32, 0.1, 512)
    assert (experts.optimizer.learning_rate, experts.optimizer.epochs, recipe.features.k) == (5e-4, 3, 256)
    calibrators = recipe.routing.calibrators
    assert (calibrators.fractal_weight, calibrators.natural_weight, calibrators.epsilon) == (0.6, 0.4, 0.05)
