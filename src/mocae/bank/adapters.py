"""LoRA experts on disk: folders in PEFT's format, read into tensors and written back."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import torch
from jaxtyping import Float
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor

from mocae.bank.patterns import Pattern
from mocae.errors import ArtifactError, ConfigError, ModelMismatchError
from mocae.files import Record, check_record, read_json, read_tensors

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "LoraPair", "LoraWeights", "load_peft", "save_peft"]

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

_Number: TypeAlias = int | float  # written to JSON as it was read: many tools want a whole lora_alpha
_NumberT = TypeVar("_NumberT", int, int | float)

_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")

# Settings under which an adapter is no longer `scaling * B A` on unchanged base weights. Empty values are fine.
_REFUSED = {
    "use_dora": "DoRA also rescales the base weights",
    "modules_to_save": "it replaces whole modules of the base model",
    "trainable_token_indices": "it replaces rows of the embedding",
    "target_parameters": "it changes parameters that belong to no linear layer",
    "layer_replication": "it changes the depth of the base model",
    "lora_bias": "it adds a trained bias",
    "use_qalora": "it pools the input before the adapter",
    "use_bdlora": "its factors are block-diagonal",
    "alora_invocation_tokens": "it acts on some tokens only",
    "arrow_config": "it is a router over other adapters",
    "monteclora_config": "it samples its weights",
    "kasa_config": "it changes the base weights",
}
_Size = Annotated[int | float, Field(gt=-(2**31), lt=2**31)]
_NAME = re.compile(r"[^.\n]{1,100}(?:\.[^.\n]{1,100}){0,31}")
"""A module's name: what is longer names no module of any model."""
_MOST_WORK = 10_000_000
"""Length of all expressions times length of all modules' names; seconds at worst."""


class _Config(Record):
    """What of `adapter_config.json` decides what the adapter does; the rest is PEFT's own business."""

    r: Annotated[int, Field(ge=1, le=2**20)]
    lora_alpha: _Size
    use_rslora: bool | None = None
    base_model_name_or_path: str | None = None
    bias: str | None = None
    init_lora_weights: bool | str | None = True
    rank_pattern: dict[str, Annotated[int, Field(ge=1, le=2**20)]] | None = None
    alpha_pattern: dict[str, _Size] | None = None


_REBASED_INITS = ("pissa", "olora", "corda", "lora_ga", "loftq")


@dataclass(frozen=True, slots=True)
class LoraPair:
    """One adapted linear: its weight changes by `scaling * B @ A`.

    Attributes:
        A: `lora_A`, shape (r, in features).
        B: `lora_B`, shape (out features, r).
        scaling: lora_alpha / r, or lora_alpha / sqrt(r) with rsLoRA.
    """

    A: Float[Tensor, "R in_features"]
    B: Float[Tensor, "out_features R"]
    scaling: float

    @property
    def r(self) -> int:
        """Rank of this pair; linears of one expert may differ."""
        return int(self.A.shape[0])

    def delta(self) -> Float[Tensor, "out_features in_features"]:
        """Return the dense change of the weight, in fp32."""
        return self.scaling * (self.B.float() @ self.A.float())


@dataclass(frozen=True, slots=True)
class LoraWeights:
    """One expert: a LoRA pair for each linear it adapts.

    Attributes:
        name: the expert's name, used in messages and as its name in a bank.
        r: rank of the adapter's config; single pairs may differ.
        lora_alpha: numerator of the scaling in the adapter's config; single pairs may differ.
        use_rslora: whether the scaling divides by sqrt(r) in place of r.
        base_model: the base model's name as the adapter's config gives it, None when it does not say.
        layers: name of the linear inside the base model -> its pair, in the order of the model.
    """

    name: str
    r: int
    lora_alpha: _Number
    use_rslora: bool
    base_model: str | None
    layers: Mapping[str, LoraPair]

    @property
    def n_parameters(self) -> int:
        """Number of values in all pairs."""
        return sum(pair.A.numel() + pair.B.numel() for pair in self.layers.values())

    @property
    def largest_rank(self) -> int:
        """Largest rank of a pair, 0 without pairs."""
        return max((pair.r for pair in self.layers.values()), default=0)


def load_peft(folder: str | Path, *, name: str | None = None) -> LoraWeights:
    """Return the expert in a PEFT LoRA folder; tensors are on the CPU in the dtype they were saved in.

    Ranks and scalings that differ between linears (`rank_pattern`, `alpha_pattern`) and rsLoRA are read.

    Args:
        folder: holds `adapter_config.json` and `adapter_model.safetensors`.
        name: name of the expert, the folder's name when None.

    Raises:
        ArtifactError: a file is missing or damaged, or the weights are a pickle.
        ModelMismatchError: the adapter is more than a LoRA on frozen linears (DoRA, trained biases, ...).
    """
    folder = Path(folder)
    name = name or folder.resolve().name
    config = _read_config(folder, name)
    pairs = _read_pairs(folder, name)
    ranks = _by_pattern(config.rank_pattern, pairs, config.r, where=f"expert {name!r}: rank_pattern")
    alphas = _by_pattern(config.alpha_pattern, pairs, config.lora_alpha, where=f"expert {name!r}: alpha_pattern")
    use_rslora = bool(config.use_rslora)
    layers: dict[str, LoraPair] = {}
    for module, (a, b) in pairs.items():
        r = int(a.shape[0])
        if r != ranks[module]:
            raise ModelMismatchError(
                f"expert {name!r}: {module!r} has rank {r} in its weights but {ranks[module]} in {CONFIG_FILE} (r, "
                "rank_pattern); the scaling would be wrong. Save config and weights together"
            )
        layers[module] = LoraPair(a, b, scaling=_scale(alphas[module], r, use_rslora=use_rslora))
    return LoraWeights(
        name=name,
        r=config.r,
        lora_alpha=config.lora_alpha,
        use_rslora=use_rslora,
        base_model=config.base_model_name_or_path or None,
        layers=layers,
    )


def save_peft(weights: LoraWeights, folder: str | Path, *, base_model_name: str | None = None) -> Path:
    """Write an expert as a folder that `load_peft` and PEFT both read back bit for bit; return the folder.

    Args:
        weights: the expert.
        folder: made when missing; other files in it are left alone.
        base_model_name: Hub id or folder written as the base model; None = what `weights` says.

    Raises:
        ConfigError: the expert adapts nothing.
    """
    if not weights.layers:
        raise ConfigError(f"expert {weights.name!r} adapts no linear; there is nothing to save")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for module, pair in weights.layers.items():
        for factor, tensor in (("A", pair.A), ("B", pair.B)):
            # A copy: safetensors refuses tensors that share memory, as slices of a stack do.
            own = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            tensors[f"base_model.model.{module}.lora_{factor}.weight"] = own
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model_name or weights.base_model,
        "r": weights.r,
        "lora_alpha": weights.lora_alpha,
        "use_rslora": weights.use_rslora,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        # Full names: endings such as "q_proj" would also match layers this expert leaves alone.
        "target_modules": sorted(weights.layers),
        "modules_to_save": None,
        "rank_pattern": {m: p.r for m, p in weights.layers.items() if p.r != weights.r},
        "alpha_pattern": _alpha_pattern(weights),
    }
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    return folder


def _read_config(folder: Path, name: str) -> _Config:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ArtifactError(
            f"expert {name!r}: {str(folder)!r} is not a PEFT adapter: no {CONFIG_FILE}. "
            "Give the folder that save_pretrained of a PEFT model wrote"
        )
    values = read_json(path, links=True)  # adapters in a cache of the hub are links
    kind = values.get("peft_type") if isinstance(values, dict) else None
    if kind != "LORA":
        raise ModelMismatchError(
            f"expert {name!r}: peft_type is {kind!r} in {path}; only 'LORA' adapters can be mixed. Train it as LoRA"
        )
    _refuse_more_than_lora(values, name)
    return check_record(_Config, values, f"expert {name!r}: {path}", remedy="save the adapter again")


def _refuse_more_than_lora(config: Mapping[str, Any], name: str) -> None:
    for key, reason in _REFUSED.items():
        if config.get(key):
            raise ModelMismatchError(
                f"expert {name!r}: {key} is {config[key]!r}, but {reason}, so the expert cannot be mixed by weights. "
                f"Train it without {key}"
            )
    bias = config.get("bias", "none")
    if bias != "none":
        raise ModelMismatchError(
            f"expert {name!r}: bias is {bias!r}; trained biases cannot be mixed by weights. Train it with bias='none'"
        )
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower().startswith(_REBASED_INITS):
        raise ModelMismatchError(
            f"expert {name!r}: init_lora_weights is {init!r}, which trains on changed base weights, so the adapter "
            "does not fit the original base model. Convert it: "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        )


def _read_pairs(folder: Path, name: str) -> dict[str, tuple[Tensor, Tensor]]:
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        pickles = sorted(p.name for p in folder.glob("*.bin"))
        hint = f"{pickles[0]} is a pickle and is never opened; save it as safetensors" if pickles else "save it again"
        raise ArtifactError(f"expert {name!r}: no {WEIGHTS_FILE} in {str(folder)!r}: {hint}")
    tensors = read_tensors(path, links=True)
    factors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        fits = match is not None and _NAME.fullmatch(match["module"]) is not None
        if match is None or not fits or tensor.dim() != 2 or not tensor.numel() or not tensor.is_floating_point():
            raise ModelMismatchError(
                f"expert {name!r}: {key[:120]!r} with shape {tuple(tensor.shape)} in {path} is no LoRA factor of a "
                "linear ('base_model.model.<module>.lora_A.weight', 2-D). Embeddings, magnitudes, biases and saved "
                "modules cannot be mixed by weights"
            )
        factors.setdefault(match["module"], {})[match["factor"]] = tensor
    if not factors:
        raise ArtifactError(f"expert {name!r}: {path} holds no tensors. Save the adapter again")
    for module, found in factors.items():
        if len(found) != 2 or found["A"].shape[0] != found["B"].shape[1]:
            shapes = {f"lora_{k}": tuple(t.shape) for k, t in sorted(found.items())}
            raise ArtifactError(
                f"expert {name!r}: {module!r} in {path} needs lora_A (r, in) and lora_B (out, r), it has {shapes}. "
                "Save the adapter again"
            )
    return {module: (factors[module]["A"], factors[module]["B"]) for module in sorted(factors, key=_natural)}


def _natural(module: str) -> list[tuple[int, str]]:
    """Sort key that puts layer 2 before layer 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in module.split(".")]


def _by_pattern(
    patterns: Mapping[str, _NumberT] | None, modules: Iterable[str], default: _NumberT, *, where: str
) -> dict[str, _NumberT]:
    """Return the value for every module as PEFT looks it up: of the first expression that ends its name."""
    modules = list(modules)
    plain: dict[str, tuple[int, _NumberT]] = {}
    others: list[tuple[int, Pattern, _NumberT]] = []
    for place, (text, value) in enumerate((patterns or {}).items()):
        try:
            pattern = Pattern(text)
        except ValueError as error:
            raise ArtifactError(
                f"{where}: {text[:80]!r} is no expression that is read ({error}); name the modules, and save the "
                "adapter again"
            ) from error
        if pattern.is_plain:
            plain.setdefault(pattern.plain, (place, value))
        else:
            others.append((place, pattern, value))
    if sum(len(p.plain) for _, p, _ in others) * sum(map(len, modules)) > _MOST_WORK:
        raise ArtifactError(f"{where}: {len(others)} expressions for {len(modules)} modules are too many; name them")
    chosen = {}
    for module in modules:
        parts = module.split(".")
        ends = [plain[end] for i in range(len(parts)) if (end := ".".join(parts[i:])) in plain]
        ends += [(place, value) for place, pattern, value in others if pattern.ends(module)]
        chosen[module] = min(ends, key=itemgetter(0))[1] if ends else default
    return chosen


def _scale(lora_alpha: _Number, r: int, *, use_rslora: bool) -> float:
    return float(lora_alpha / math.sqrt(r) if use_rslora else lora_alpha / r)


def _alpha_pattern(weights: LoraWeights) -> dict[str, _Number]:
    """Return `lora_alpha` of each pair whose scaling is not the one the config's own `lora_alpha` gives."""
    pattern: dict[str, _Number] = {}
    for module, pair in weights.layers.items():
        if pair.scaling != _scale(weights.lora_alpha, pair.r, use_rslora=weights.use_rslora):
            exact = pair.scaling * (math.sqrt(pair.r) if weights.use_rslora else pair.r)
            whole = round(exact)  # lora_alpha is nearly always whole; division and product need not cancel exactly
            fits = _scale(whole, pair.r, use_rslora=weights.use_rslora) == pair.scaling
            pattern[module] = whole if fits else exact
    return pattern


def common_rank(layers: Mapping[str, LoraPair]) -> int:
    """Return the rank most pairs have, so that a config's `rank_pattern` is short."""
    return Counter(pair.r for pair in layers.values()).most_common(1)[0][0]
