"""PEFT's X-LoRA: a head on the base model's last hidden state weighs the experts of every token."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel, XLoraConfig, get_peft_model
from pydantic import PositiveFloat, PositiveInt
from safetensors.torch import save_file
from torch import Tensor, nn

from mocae.config import Recipe
from mocae.errors import ConfigError
from mocae.experts import given_back, quiet_peft
from mocae.files import read_tensors
from mocae.models import (
    BaseGenerator,
    GateTraining,
    Generator,
    LabelledRow,
    LoadedBase,
    Trace,
    batch_of,
    encode_rows,
    take_steps,
)
from mocae.stages.base_size import BaseSize
from mocae.stages.run import Made, Run
from mocae.stages.store import Stage
from mocae.stages.training import note_training
from mocae.stages.training_plan import TrainingPlan, mixture_plan
from mocae.systems import System
from mocae.systems.gates import GateOptions, collapse_warnings, gate_inputs, gate_rows, gate_settings
from mocae.systems.routers import refuse_large_top_k

__all__ = ["XLora", "XLoraMixture", "XLoraOptions", "on_xlora", "scaling_head", "train_xlora"]

_HEAD = "xlora.safetensors"


class XLoraOptions(GateOptions):
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


class _InFp32(nn.Module):
    """Hands its input on in fp32, so that the head trains in fp32 on a base model of half precision."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden.float()


def on_xlora(
    model: Any,
    folders: Sequence[Path],
    *,
    options: XLoraOptions = XLoraOptions(),  # noqa: B008 - frozen
    seed: int = 0,
    autocast: bool = True,
) -> PeftModel:
    """Return `model` with the experts behind PEFT's X-LoRA, in place, in evaluation mode, the experts frozen.

    Its `config.use_cache` is switched off: X-LoRA reads the whole text twice for every token.

    Args:
        model: the base model.
        folders: PEFT adapters; ranks and linears may differ.
        options: of the head.
        seed: of the head's first weights, and of torch's global generator from here on.
        autocast: keep experts in fp32 where the base is of half precision.

    Raises:
        ConfigError: a top_k that is larger than the number of experts, or PEFT refuses the experts.

    Reference: Buehler and Buehler, X-LoRA (arXiv 2402.07148).
    """
    if options.top_k is not None and options.top_k > len(folders):
        raise ConfigError(f"X-LoRA: top_k is {options.top_k}, but there are {len(folders)} experts; give at most that")
    torch.manual_seed(seed)
    model.config.use_cache = False
    config = XLoraConfig(
        task_type="CAUSAL_LM",
        hidden_size=int(model.get_input_embeddings().weight.shape[1]),
        # PEFT loads the experts as "0", "1", ... and switches on those of these names; other names are never used.
        adapters={str(k): str(folder) for k, folder in enumerate(folders)},
        softmax_temperature=options.softmax_temperature,
        layerwise_scalings=options.layerwise_scalings,
        xlora_depth=options.xlora_depth,
        xlora_size=options.xlora_size,
        xlora_dropout_p=0.0,
        top_k_lora=options.top_k,
    )
    try:
        with quiet_peft():
            return get_peft_model(model, config, autocast_adapter_dtype=autocast).eval()
    except ValueError as error:
        raise ConfigError(f"X-LoRA cannot take these experts: {error}") from error


def scaling_head(wrapped: PeftModel) -> nn.Module:
    """Return the part of X-LoRA that is trained, in fp32."""
    classifier: Any = wrapped.base_model.internal_xlora_classifier
    if not isinstance(classifier.layers[0], _InFp32):
        classifier.layers = nn.Sequential(_InFp32(), *classifier.layers).float()
    head: nn.Module = classifier.layers
    return head


def train_xlora(
    base: LoadedBase,
    wrapped: PeftModel,
    rows: Sequence[tuple[str, str, int]],
    *,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    max_length: int,
    seed: int,
) -> GateTraining:
    """Train the scaling head in place with the language-model loss and return what happened.

    Args:
        base: tokenizer and device.
        wrapped: made by `on_xlora`.
        rows: (formatted prompt, formatted response, index of its axis).
        learning_rate: peak, AdamW, with a cosine to zero.
        epochs: passes over the rows.
        batch_size: rows a step.
        max_length: tokens a row is cut to.
        seed: of the order.

    Raises:
        DataError: no rows, or none with room for a response.
        TrainingError: the loss is not finite, or the head gets no gradient from the language-model loss.
    """
    label = "X-LoRA head"
    head = scaling_head(wrapped)
    wrapped.requires_grad_(False)
    head.requires_grad_(True)
    means: list[Tensor] = []
    none = torch.zeros((), device=base.model.device)
    tuner: Any = wrapped.base_model

    def loss(some: Sequence[LabelledRow]) -> tuple[Tensor, Tensor]:
        batch, _ = batch_of(some, pad=base.tokenizer.pad_token_id, device=base.model.device)
        language = wrapped(**batch, use_cache=False).loss
        scalings = tuner.get_latest_scalings()
        means.append(_used(wrapped, scalings.detach(), batch["attention_mask"]).mean(0).cpu())
        return language, none

    encoded = encode_rows(base.tokenizer, rows, max_length, label=label)
    steps = take_steps(
        head.parameters(),
        encoded,
        loss,
        gates=list(head.parameters()),
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        label=label,
    )
    head.requires_grad_(False)
    return GateTraining.of(steps, means, sum(p.numel() for p in head.parameters()))


class XLoraMixture(BaseGenerator):
    """Generates text with X-LoRA, without a KV cache, as PEFT does.

    Args:
        base: model and tokenizer, X-LoRA on the model.
        wrapped: made by `on_xlora`.
        experts: names, in the order of the folders it was made of.
        on_release: called by `release`, perhaps twice.
    """

    each_token = True
    cached = False

    def __init__(
        self,
        base: LoadedBase,
        wrapped: PeftModel,
        experts: Sequence[str],
        *,
        on_release: Callable[[], object] | None = None,
    ) -> None:
        on_base: Any = wrapped  # it reads and generates like the model it wraps
        super().__init__(LoadedBase(on_base, base.tokenizer, base.description), on_release=on_release)
        self.experts = tuple(experts)
        self._wrapped = wrapped

    @contextmanager
    def reading(self, inputs: Mapping[str, Tensor], ids: Sequence[str]) -> Iterator[Trace]:
        """Return a context that keeps the mean weight of each expert over linears and prompt tokens."""
        trace = Trace()

        def keep(_module: nn.Module, _args: Any, scalings: Tensor) -> None:
            if trace.alpha is None:  # the first pass reads the prompts
                trace.alpha = _used(self._wrapped, scalings, inputs["attention_mask"]).detach().cpu()

        classifier: Any = self._wrapped.base_model.internal_xlora_classifier
        handle = classifier.register_forward_hook(keep)
        try:
            yield trace
        finally:
            handle.remove()


def _used(wrapped: PeftModel, scalings: Float[Tensor, "B T M K"], mask: Tensor) -> Float[Tensor, "B K"]:
    """Return the share of each expert in the scalings that PEFT uses: the mean over linears and real tokens.

    With `top_k_lora` PEFT drops the smaller scalings and leaves the others as they are, so that their sum is below 1.
    """
    top_k = wrapped.peft_config["default"].top_k_lora  # type: ignore[attr-defined]
    used = scalings.float()
    if top_k is not None:
        used = used * torch.zeros_like(used).scatter(-1, used.topk(top_k, dim=-1).indices, 1.0)
    real = mask[..., None].float()
    mean = (used.mean(2) * real).sum(1)
    return mean / mean.sum(-1, keepdim=True)


class XLora(System):
    """PEFT's X-LoRA over the same experts, its head trained."""

    Options = XLoraOptions
    whole_weights = True
    weights_mean = "shares"

    def check(self) -> None:
        """Refuse a top_k beyond the number of experts."""
        super().check()
        refuse_large_top_k(self.options.top_k, self.axes)

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return the experts and the head.

        Raises:
            TrainingError: the head gets no gradient from the language-model loss, or a loss is not finite.
        """
        experts = {f"expert:{axis}": stage for axis, stage in run.experts.items()}

        def fit(folder: Path) -> None:
            with run.bare() as base, given_back(base.model):
                folders = [stage.folder for stage in experts.values()]
                wrapped = on_xlora(base.model, folders, options=self.options, seed=run.recipe.seed)
                record = train_xlora(
                    base,
                    wrapped,
                    gate_rows(run, self.options.max_rows),
                    **gate_settings(run, self.options),
                )
                save_file(dict(scaling_head(wrapped).state_dict()), str(folder / _HEAD))
            note_training(record, folder)

        inputs = gate_inputs(run, self.options)
        return {**experts, "head": run.store.stage(f"xlora/{self.folder}", inputs, fit, needs=experts.values())}

    def load(self, made: Made) -> Generator:
        """Return the base model with experts and head."""
        with ExitStack() as stack:
            stack.enter_context(given_back(made.base.model))
            folders = [made.folders[f"expert:{axis}"] for axis in made.axes]
            wrapped = on_xlora(made.base.model, folders, options=self.options)
            scaling_head(wrapped).load_state_dict(read_tensors(made.folders["head"] / _HEAD))
            return XLoraMixture(made.base, wrapped, made.axes, on_release=stack.pop_all().close)

    def warnings(self, made: Made) -> list[str]:
        """Say where routing collapsed."""
        return collapse_warnings(self.name, made.record("head"))

    def trains(self, recipe: Recipe, base: BaseSize, n_rows: int | None) -> TrainingPlan | None:
        """Return the cost of the head, counted with one linear, for which the base model is read twice."""
        gates = len(self.axes) * (base.hidden_size + 1)
        return mixture_plan(recipe, base, self.kind, n_rows, experts=0, gates=gates, extra_passes=1)
