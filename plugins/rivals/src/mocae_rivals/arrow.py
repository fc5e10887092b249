"""PEFT's Arrow: every linear weighs the experts of every token by their leading directions; nothing is trained."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from peft import ArrowConfig, LoraConfig, PeftModel
from pydantic import PositiveFloat, PositiveInt
from torch import nn

from mocae.bank import load_peft, save_peft
from mocae.config.base import Config
from mocae.errors import ConfigError
from mocae.experts import given_back, quiet_peft
from mocae.merging import TaskVector
from mocae.models import Generator, LoadedBase, PlainModel
from mocae.stages.run import Made, Run
from mocae.stages.store import Stage
from mocae.systems import System, task_vectors

__all__ = ["Arrow", "on_arrow"]


def on_arrow(
    model: Any,
    folders: Sequence[Path],
    *,
    top_k: int,
    temperature: float = 1.0,
    seed: int = 0,
    autocast: bool = True,
) -> PeftModel:
    """Return `model` with the experts behind PEFT's Arrow router, in place and in evaluation mode.

    Args:
        model: the base model.
        folders: PEFT adapters of the same rank on the same linears.
        top_k: experts a token uses in a linear.
        temperature: of the softmax over absolute inner products of token and prototype.
        seed: start of the power iteration that finds each expert's leading direction.
        autocast: keep experts in fp32 where the base is of half precision.

    Raises:
        ConfigError: experts of different ranks or linears, which PEFT's Arrow stacks into one tensor.

    Reference: Ostapenko et al., Towards Modular LLMs by Building and Reusing a Library of LoRAs (arXiv 2405.11157).
    Deviation: `peft.create_arrow_model` puts its router on linears of that name in every layer, and fails in a layer
        that no expert adapts; here it sits where the experts do.
    """
    names = [f"task_{k}" for k in range(len(folders))]
    with quiet_peft():
        first, *others = folders
        wrapped = PeftModel.from_pretrained(model, str(first), names[0], autocast_adapter_dtype=autocast)
        for name, folder in zip(names[1:], others, strict=True):
            wrapped.load_adapter(str(folder), name, autocast_adapter_dtype=autocast)
        tuner: Any = wrapped.base_model
        ranks = _ranks(tuner.model, names)
        config = ArrowConfig(top_k=min(top_k, len(folders)), router_temperature=temperature, rng_seed=seed)
        config.task_adapter_names, config.gks_adapter_names = names, []
        router = LoraConfig(arrow_config=config, target_modules=list(ranks), r=next(iter(ranks.values())))
        wrapped.add_adapter("arrow_router", router)
        wrapped.set_adapter("arrow_router")
    return wrapped.eval()


def _ranks(model: nn.Module, names: Sequence[str]) -> dict[str, int]:
    """Return the rank of the experts in each linear they adapt."""
    found: dict[str, int] = {}
    for place, module in model.named_modules():
        held: Any = getattr(module, "lora_A", None)
        if not held:
            continue
        ranks = {name: held[name].weight.shape[0] if name in held else 0 for name in names}
        if len(set(ranks.values())) != 1:
            raise ConfigError(
                f"Arrow needs experts of one rank on the same linears; at {place} they have ranks "
                f"{list(ranks.values())}. Train them with the same experts.r and target_modules"
            )
        found[place] = ranks[names[0]]
    if len(set(found.values())) != 1:
        raise ConfigError(f"Arrow needs experts of one rank in all linears, got {sorted(set(found.values()))}")
    return found


class ArrowOptions(Config):
    """Options of an `arrow` system, in PEFT's words where it has them."""

    top_k: PositiveInt = 3
    """Experts a token uses in a linear; at most all."""
    router_temperature: PositiveFloat = 1.0
    """Of the softmax over similarities."""
    subtract: Literal["joint"] | None = None
    """GenKnowSub: subtract the task vector of joint training, as general knowledge, from every expert; exactly, where
    PEFT subtracts the factors."""


class Arrow(System):
    """PEFT's Arrow over the same experts: no training, every linear weighs every token."""

    Options = ArrowOptions
    whole_weights = True

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return the experts, and "arrow": the seed, and the experts without joint training where that is subtracted.

        Raises:
            ConfigError: the experts differ in rank or linears.
        """
        experts = {f"expert:{axis}": stage for axis, stage in run.experts.items()}
        joint = []
        if self.options.subtract is not None:
            with run.bare():
                joint = [run.trainer.joint(run.rows.all_of("train"))]

        def make(folder: Path) -> None:
            (folder / "arrow.json").write_text(json.dumps({"seed": run.recipe.seed}) + "\n", encoding="utf-8")
            for stage in joint:
                general = TaskVector.from_lora(load_peft(stage.folder, name="joint"))
                for axis, vector in task_vectors({a: s.folder for a, s in run.experts.items()}).items():
                    save_peft((vector - general).to_lora(axis), folder / axis)

        needs = (*experts.values(), *joint)
        return {
            **experts,
            "arrow": run.store.stage(f"arrow/{self.folder}", {"seed": run.recipe.seed}, make, needs=needs),
        }

    def load(self, made: Made) -> Generator:
        """Return the base model with the router on it."""
        with ExitStack() as stack:
            stack.enter_context(given_back(made.base.model))
            wrapped: Any = on_arrow(
                made.base.model,
                self._folders(made),
                top_k=self.options.top_k,
                temperature=self.options.router_temperature,
                seed=made.record("arrow", "arrow.json")["seed"],
            )
            on_base = LoadedBase(wrapped, made.base.tokenizer, made.base.description)  # generates like what it wraps
            return PlainModel(on_base, each_token=True, on_release=stack.pop_all().close)

    def n_active(self, made: Made) -> int:
        """Return the parameters of the experts, which grow where joint training is subtracted."""
        return sum(load_peft(folder).n_parameters for folder in self._folders(made))

    def _folders(self, made: Made) -> list[Path]:
        if self.options.subtract is not None:
            return [made.folders["arrow"] / axis for axis in made.axes]
        return [made.folders[f"expert:{axis}"] for axis in made.axes]
