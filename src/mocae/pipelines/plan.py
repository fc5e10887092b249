"""What a run will cost, from its recipe alone: no weight is read and nothing is trained.

Counting rules, all upper bounds or estimates (N parameters, T tokens):

- *Training tokens*: rows x epochs x max_length. Rows are the limit, or the rows of the file where it can be read.
- *Training FLOPs* of one expert: 2 N T forward, 2 N_above T back through the layers from `from_layer` up, and
  6 n_lora T for the adapter itself. Nothing is adapted below `from_layer`, so no gradient goes there; with
  `from_layer` 0 this is the usual 4 N T + 6 n_lora T, against 6 N T for full fine-tuning. N leaves out the
  embedding table, which is looked up. Products of queries with keys are left out too.
- *Mixtures* (TrinityX, X-LoRA, H3Fusion): experts of their own over the recipe's epochs, then the router over one
  pass; `max_rows` and `epochs` of a system are not looked at.
- *Training memory*, beside the libraries themselves: base weights, 16 bytes an adapter parameter (fp32 value,
  gradient, two AdamW moments), what the backward pass needs of every token, and the loss. A layer from `from_layer` up
  keeps 8 hidden vectors (before and after two norms; query, key, value and what attention gives) and of its
  feed-forward block twice the width of what widens; adapters keep their inputs in fp32 where the base model is in 16
  bits, and once more with dropout. On an accelerator activations are checkpointed: one hidden vector a layer, and
  one layer in full. The loss is computed in tiles of 4096 tokens x 32768 words: one tile on an accelerator, 8.25 in
  fp32 on a CPU, where it has no fused kernel. A step of a large model on a CPU goes through it in parts (see
  `mocae.experts.thrift`): the tokens of a part count, in small tiles, and
  norms alone keep their input in fp32. An objective of pairs reads two answers a row and takes more.
- *Disk*: adapters in fp32, the router and its latent space; answers and reports are small beside them.
- *Serving memory*: base weights, all experts in the same type, key-value cache of one generation batch.
- *Bytes a token*: what one decode step at batch 1 reads: base weights without the embedding table, experts,
  cache at full length.

Reference: 6 N T of Kaplan et al. (arXiv:2001.08361), section 2.1. Activations are counted as Korthikanti et al.
(arXiv:2205.05198), section 4.1, do, less what a frozen linear does not keep and the attention matrix, which fused
attention does not store; docs/scale.md has them beside measured memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mocae.config import AxisConfig, Recipe, SourceConfig
from mocae.data import read_source, select
from mocae.experts.thrift import TILE, rows_at_once
from mocae.stages.base_size import BaseSize, measure_base
from mocae.stages.run import Run
from mocae.stages.training_plan import TrainingPlan, adapter_plan
from mocae.systems import System, build_systems

__all__ = ["Plan", "plan", "work_of"]

_ADAMW_BYTES = 16
"""fp32 value + fp32 gradient + two fp32 moments of one trained parameter."""
_HIDDEN_VECTORS = 8
"""Kept a token and layer: before and after two norms, query, key, value, and what attention gives."""
_UNKNOWN_BLOCK = 9
"""Hidden vectors in place of a feed-forward block that cannot be counted."""
_TILE = (4096, 32768)
"""Tokens and words the trainer's loss looks at together."""
_TILES_ON_CPU = 8.25
"""Logits twice and scaled, log-softmax, softmax, gradient, two steps on the way to it; a mask of bools."""

_DECODING = 4
"""How much longer an operation takes while an answer is written, token after token; of the pocket lab on a CPU."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will cost; bytes, tokens and floating-point operations."""

    recipe: str
    model: str | None
    base: BaseSize
    device: str
    experts: tuple[TrainingPlan, ...]
    n_tokens: int | None
    flops: int | None
    full_finetuning_flops: int | None
    training_memory_bytes: int
    serving_memory_bytes: int
    disk_bytes: int
    bytes_per_token: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return asdict(self)


def plan(recipe: Recipe) -> Plan:
    """Return what a run of `recipe` will cost.

    The architecture comes from the base model's config where that is a folder or cached, else from `base.shape`.

    Raises:
        ConfigError: there is neither, or a module or layer the recipe names is not in the model.
    """
    base, device = measure_base(recipe.base, recipe.experts), _device(recipe)
    r = recipe.experts.r
    rows = {axis.name: _total(_rows(recipe, axis, source) for source in axis.train) for axis in recipe.axes}
    experts = tuple(adapter_plan(recipe, base, axis, n_rows, r) for axis, n_rows in rows.items())
    n_rows = _total(rows.values())
    others = (system.trains(recipe, base, n_rows) for system in build_systems(recipe))
    # Several of one kind share what they train. Rivals have the rank of all experts together.
    by_name = {other.name: other for other in others if other is not None}
    trained = [*experts, *(by_name[name] for name in sorted(by_name))]
    largest = max(expert.n_parameters for expert in trained)
    bank = sum(expert.n_parameters for expert in experts)
    n_tokens = _total(expert.n_tokens for expert in trained)
    full_tokens = _total(expert.n_tokens for expert in experts)
    return Plan(
        recipe=recipe.name,
        model=recipe.base.model,
        base=base,
        device=device,
        experts=tuple(trained),
        n_tokens=n_tokens,
        flops=_total(expert.flops for expert in trained),
        full_finetuning_flops=None if full_tokens is None else 6 * base.n_matmul * full_tokens,
        training_memory_bytes=_training_memory(recipe, base, largest, device),
        serving_memory_bytes=_serving_memory(recipe, base, bank),
        disk_bytes=4 * sum(part.n_parameters * part.n_kept for part in trained) + _router_bytes(recipe, base),
        notes=_notes(recipe, base),
        bytes_per_token=(base.n_matmul + bank + base.cache_values * _context(recipe)) * base.dtype_bytes,
    )


def _notes(recipe: Recipe, base: BaseSize) -> tuple[str, ...]:
    if not base.unused:
        return ()
    keys = ", ".join(f"base.shape.{key}" for key in base.unused)
    return (
        f"{keys}: not used; the config of {recipe.base.model!r} is here and says otherwise (base.model=null uses it)",
    )


def _rows(recipe: Recipe, axis: AxisConfig, source: SourceConfig) -> int | None:
    """Return the rows of a source: counted where it can be read here, else its limit, which bounds them."""
    counted = _count(recipe, axis, source)
    return source.limit if counted is None else counted


def _training_memory(recipe: Recipe, base: BaseSize, n_trained: int, device: str) -> int:
    optimizer, length = recipe.experts.optimizer, recipe.experts.max_length
    part = rows_at_once(
        device, base.n_parameters, float(length), optimizer.batch_size * optimizer.gradient_accumulation
    )
    tokens = length * (optimizer.batch_size if part is None else min(part, optimizer.batch_size))
    layers = base.n_layers - base.from_layer
    hidden = base.hidden_size * base.dtype_bytes
    kept = tokens * _kept_of_a_token(recipe, base, autocast=part is not None)
    of_adapter = _ADAMW_BYTES if part is None else _ADAMW_BYTES + base.dtype_bytes  # autocast holds a copy
    most_tokens, most_words = _TILE if part is None else TILE
    tile = min(tokens, most_tokens)
    if device == "cpu":
        loss = tile * min(base.vocab_size, most_words) * 4 * _TILES_ON_CPU
    else:
        kept = tokens * layers * hidden + kept // layers
        loss = tile * _TILE[1] * base.dtype_bytes
    return base.n_parameters * base.dtype_bytes + n_trained * of_adapter + kept + round(loss)


def _kept_of_a_token(recipe: Recipe, base: BaseSize, *, autocast: bool) -> int:
    """Return the bytes all adapted layers keep of one token for the backward pass, without checkpointing.

    In 16 bits adapters keep their inputs in fp32, or with `autocast` norms alone do.
    """
    layers = base.n_layers - base.from_layer
    widened = sum(n_out for n_out, _ in base.blocks if n_out != base.hidden_size)
    block = 2 * widened if base.blocks else layers * _UNKNOWN_BLOCK * base.hidden_size
    dropped, half = recipe.experts.lora_dropout > 0, base.dtype_bytes < 4
    cast = half and not autocast
    vectors = _HIDDEN_VECTORS + (2 if half and autocast else 0)
    of_input = 5 if dropped else 4 if cast else 0  # fp32, with dropout its mask of bools as well
    inputs = sum(n_in for _, n_in in base.adapted)
    return (layers * vectors * base.hidden_size + block) * base.dtype_bytes + inputs * of_input


def _device(recipe: Recipe) -> str:
    """Return "cpu" or "cuda", as a run on this machine would choose."""
    if recipe.base.device != "auto":
        return recipe.base.device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _serving_memory(recipe: Recipe, base: BaseSize, bank: int) -> int:
    cache = recipe.generation.batch_size * _context(recipe) * base.cache_values
    return (base.n_parameters + bank + cache) * base.dtype_bytes


def _router_bytes(recipe: Recipe, base: BaseSize) -> int:
    """Return bytes of the latent basis, the axis subspaces and the router matrix in fp32; all at most k wide."""
    k, n_axes = recipe.features.k, len(recipe.axes)
    read = base.hidden_size * (2 if recipe.features.pool == "mean+last" else 1)
    return 4 * (read * k + n_axes * k * k + n_axes * (n_axes + 1) * k)


def _context(recipe: Recipe) -> int:
    return recipe.experts.max_length + recipe.generation.max_new_tokens


def _total(parts: Iterable[int | None]) -> int | None:
    """Return the sum, None when a part is not known."""
    known = list(parts)
    return None if None in known else sum(part for part in known if part is not None)


def _count(recipe: Recipe, axis: AxisConfig, source: SourceConfig) -> int | None:
    """Return the rows a source gives, None when they are not on this machine: a hub set, or a file elsewhere."""
    if source.source == "hub" or (source.path is not None and not _is_here(recipe, source.path)):
        return None
    read = read_source(
        source.source,
        recipe.data_path(source.path),
        axis=axis.name,
        on_bad_row=source.on_bad_row,
        options=source.options,
    )
    return len(select(read.examples, hash_range=source.hash_range, limit=source.limit))


def _is_here(recipe: Recipe, path: Path) -> bool:
    if recipe.data_root is None and not path.is_absolute():
        return False
    return (recipe.data_root or Path()).joinpath(path).is_file()


def work_of(run: Run, systems: Sequence[System]) -> dict[str, float]:
    """Return how much work every expert and every system is, in floating-point operations of training.

    Systems that share what they train count it each, so what is left is rather too long than too short.
    """
    recipe, rows = run.recipe, run.rows
    base = measure_base(recipe.base, recipe.experts)
    answers = len(rows.all_of("test")) * recipe.generation.max_new_tokens * 2 * base.n_matmul * _DECODING
    parts = {}
    for axis in recipe.axis_names:
        trained = adapter_plan(recipe, base, axis, len(rows.train[axis]), recipe.experts.r)
        parts[f"expert {axis}"] = float(trained.flops or 0)
    for system in systems:
        plan = system.trains(recipe, base, len(rows.all_of("train")))
        parts[f"system {system.name}"] = float((plan.flops if plan is not None else 0) or 0) + answers
    return parts
