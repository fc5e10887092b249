"""Options of the systems that are more than a policy over the bank, and whether a recipe's fit."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from mocae.config.base import Config, FilePath, Sequence
from mocae.config.comparing import SystemConfig
from mocae.config.overrides import override_model
from mocae.errors import ConfigError, unknown_name

__all__ = [
    "TRAINED_SYSTEMS",
    "ArrowConfig",
    "H3FusionConfig",
    "HmaConfig",
    "JointOutcomesConfig",
    "SequentialConfig",
    "TrinityXConfig",
    "XLoraConfig",
    "rival_options",
    "sharding_problem",
]

TRAINED_SYSTEMS: Mapping[str, str] = MappingProxyType(
    {
        "joint": "one adapter tuned on the rows of all axes at once",
        "joint_outcomes": "joint tuning plus the accepted answers to the calibration prompts",
        "sequential": "one adapter tuned on one axis after another, in options.order",
        "prompt_only": "the base model with all injected prompts as instructions",
        "merge": "the experts merged into the weights: merge:<method>, see `mocae ls merges`",
        "trinityx": "TrinityX: experts in feed-forward blocks, a router in each",
        "xlora": "PEFT's X-LoRA over the same experts, its head trained",
        "arrow": "PEFT's Arrow over the same experts, no training",
        "hma": "the experts averaged with a weight for each block of layers, fitted on training rows",
        "h3fusion": "H3Fusion: whole feed-forward blocks tuned an axis, two a token",
    }
)
"""Systems that are more than a policy over the bank of experts, with one line each."""

_NEED_WHOLE_WEIGHTS = frozenset({"merge", "hma", "xlora", "arrow", "h3fusion"})


class NoOptions(Config):
    """A system without options."""


class JointOutcomesConfig(Config):
    """Options of a `joint_outcomes` system."""

    schedule: Literal["mixed", "after", "alone"] = "mixed"
    """When the accepted answers are learned: mixed with the rows of all axes, after them, or alone."""


class SequentialConfig(Config):
    """Options of a `sequential` system."""

    order: Annotated[tuple[str, ...], Sequence] | None = None
    """Every axis once; null: comparison.order, else as they stand in the recipe."""


class RouterTrainingConfig(Config):
    """How the router of a mixture is trained."""

    learning_rate: PositiveFloat = 5e-3
    """Peak learning rate of AdamW."""
    epochs: PositiveInt = 1
    """Passes over the rows."""
    max_rows: PositiveInt | None = None
    """Most rows an axis gives; null: all."""


class TrinityXConfig(RouterTrainingConfig):
    """Options of a `trinityx` system; the defaults are the papers' where they say."""

    target_modules: Literal["feed-forward"] | Annotated[tuple[str, ...], Sequence] = "feed-forward"
    """Adapted modules; feed-forward: the linears of the block behind attention."""
    tau: PositiveFloat = 0.7
    """Softmax temperature of the gates. TrinityX: 0.7."""
    top_k: PositiveInt | None = None
    """Experts a token uses; null: all. All learn from every token."""
    norm: bool = False
    """LayerNorm and residual after fusion."""
    importance: Literal["uniform", "others", "mean", "joint", "adapter"] = "others"
    """gamma: all alike, or the inner product with T_ref: the mean of the other task vectors, of all, the task vector of
    joint training, or that of `importance_adapter`."""
    importance_adapter: FilePath | None = None
    """PEFT folder whose task vector is T_ref."""
    importance_normalise: Literal["softmax", "sum", "cosine"] = "softmax"
    """How inner products become gamma, see `mocae.merging.importance`."""
    importance_temperature: PositiveFloat = 1.0
    """Softmax temperature of the inner products, in units of the mean squared norm of the task vectors."""
    gating: NonNegativeFloat = 0.01
    """Weight of the gating loss. H3Fusion: 0.01."""
    regularisation: NonNegativeFloat = 0.001
    """Weight of the regularisation loss. H3Fusion: 0.001."""
    entropy: NonNegativeFloat = 0.1
    """Weight of the entropy term. TrinityX's code: 0.1."""
    kl: NonNegativeFloat = 0.01
    """Weight of the KL term. TrinityX's code: 0.01."""


class XLoraConfig(RouterTrainingConfig):
    """Options of an `xlora` system, in PEFT's words where it has them."""

    top_k: PositiveInt | None = None
    """Experts a token uses; null: all."""
    softmax_temperature: PositiveFloat = 1.0
    """Of the head's softmax."""
    layerwise_scalings: bool = False
    """Weights of its own for every adapted linear."""
    xlora_depth: PositiveInt = 1
    """Linears in the head."""
    xlora_size: PositiveInt = 256
    """Width between them."""


class ArrowConfig(Config):
    """Options of an `arrow` system, in PEFT's words where it has them."""

    top_k: PositiveInt = 3
    """Experts a token uses in a linear; at most all."""
    router_temperature: PositiveFloat = 1.0
    """Of the softmax over similarities."""
    subtract: Literal["joint"] | None = None
    """GenKnowSub: subtract the task vector of joint training, as general knowledge, from every expert; exactly, where
    PEFT subtracts the factors."""


class HmaConfig(Config):
    """Options of an `hma` system: heterogeneous model averaging."""

    n_blocks: Annotated[int, Field(ge=2)] = 3
    """Blocks of the layers that carry experts, nearly equal; each has weights of its own. The paper: 3."""
    mean: PositiveFloat | None = None
    """Weight of every expert averaged over the blocks; null: 1 / number of experts."""
    steps: PositiveInt = 40
    """Evaluations of the loss on all rows."""
    learning_rate: PositiveFloat = 0.1
    """Of Adam on the logits of the weights."""
    epsilon: PositiveFloat = 0.2
    """How far blocks may drift apart; small = far. The paper's code: 0.2."""
    max_rows: PositiveInt = 24
    """Rows an axis gives."""


class H3FusionConfig(RouterTrainingConfig):
    """Options of an `h3fusion` system; the defaults are H3Fusion's where it says."""

    learning_rate: PositiveFloat = 5e-4
    """Peak learning rate of gates and experts together. H3Fusion: 5e-4."""
    expert_learning_rate: PositiveFloat = 5e-4
    """Peak learning rate of each expert on its own axis. H3Fusion: 5e-4."""
    expert_epochs: PositiveFloat | None = None
    """Passes of each expert over its axis; null: as the recipe's experts."""
    top_k: Annotated[int, Field(ge=2)] = 2
    """Experts a token uses, 2 or more: one would have weight 1 whatever its gate says. H3Fusion: 2."""
    from_layer: Annotated[int, Field(ge=0)] | None = None
    """First decoder layer with a mixture; null: as the recipe's experts."""
    train_experts: bool = True
    """Train the blocks further behind the gates, as H3Fusion does; false: the gates alone."""
    gating: NonNegativeFloat = 0.01
    """Weight of the gating loss. H3Fusion: 0.01."""
    regularisation: NonNegativeFloat = 0.001
    """Weight of the regularisation loss. H3Fusion: 0.001."""


_OPTIONS: Mapping[str, type[Config]] = {
    "joint": NoOptions,
    "joint_outcomes": JointOutcomesConfig,
    "prompt_only": NoOptions,
    "sequential": SequentialConfig,
    "trinityx": TrinityXConfig,
    "xlora": XLoraConfig,
    "arrow": ArrowConfig,
    "hma": HmaConfig,
    "h3fusion": H3FusionConfig,
}


def rival_options(system: SystemConfig, axes: tuple[str, ...], *, where: str) -> Any:
    """Return the options of a system in `TRAINED_SYSTEMS`: its config, or for a merge those of the method as they are.

    Args:
        system: of the recipe.
        axes: names of the recipe's axes.
        where: opens the message, such as "systems.3".

    Raises:
        ConfigError: an option does not exist or does not fit.
        PluginError: no such merge method.
    """
    head, colon, argument = system.policy.partition(":")
    where = f"{where}.options"
    if head == "merge":
        return _merge_options(argument, dict(system.options), axes, where)
    if colon:
        raise ConfigError(f"{where.removesuffix('.options')}.policy: {head!r} takes nothing behind a colon")
    given = _OPTIONS[head]
    for key in system.options:
        if key not in given.model_fields:
            raise ConfigError(f"{where}.{key}: {unknown_name(f'option of {head!r}', key, given.model_fields)}")
    config = override_model(given(), dict(system.options), where=where)
    if isinstance(config, SequentialConfig) and config.order is not None and sorted(config.order) != sorted(axes):
        raise ConfigError(f"{where}.order: got {list(config.order)}; name every axis once ({', '.join(axes)})")
    if isinstance(config, TrinityXConfig):
        _check_importance(config, where)
    top_k = getattr(config, "top_k", None)
    if top_k is not None and head != "arrow" and top_k > len(axes):
        raise ConfigError(f"{where}.top_k: got {top_k}; there are {len(axes)} experts, so at most that")
    return config


def sharding_problem(policy: str) -> str | None:
    """Return why a system's policy cannot be had with `base.shard`, None where it can."""
    if policy.partition(":")[0] not in _NEED_WHOLE_WEIGHTS:
        return None
    return (
        f"{policy!r} needs every weight of the base model whole, and base.shard cuts them over the processes; leave "
        "this system out, or run without base.shard"
    )


def _check_importance(config: TrinityXConfig, where: str) -> None:
    folder = config.importance_adapter
    if (config.importance == "adapter") != (folder is not None):
        raise ConfigError(
            f"{where}.importance_adapter: got {folder} with importance {config.importance!r}; "
            "give a PEFT folder with 'adapter', and none with the others"
        )
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if folder is not None and not (folder / name).is_file():
            raise ConfigError(f"{where}.importance_adapter: no file '{folder / name}'; give the folder of a PEFT LoRA")


def _merge_options(method: str, options: dict[str, Any], axes: tuple[str, ...], where: str) -> dict[str, Any]:
    from mocae.merging import MERGE_METHODS  # imports torch, which reading a recipe does not need

    found = MERGE_METHODS.get(method)
    chosen = options.pop("experts", list(axes))
    if not isinstance(chosen, list) or not chosen or len(set(map(str, chosen))) != len(chosen):
        raise ConfigError(f"{where}.experts: got {chosen!r}; give a list of axes, each once")
    weights = [options.get("weights") or {}, *(options.get("blocks") or [])]
    for name in (*chosen, *(name for part in weights if isinstance(part, Mapping) for name in part)):
        if name not in axes:
            raise ConfigError(f"{where}: {unknown_name('expert', str(name), axes)}")
    try:
        found.check(options)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return {**options, "experts": chosen}
