"""Output calibrators: a small residual behind each mixed layer, for what no weighting of experts can put right."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from pydantic import NonNegativeInt
from safetensors.torch import save_file
from torch import Tensor, nn

from mocae.bank import ExpertBank
from mocae.errors import ArtifactError, DataError, ModelMismatchError, NothingToLearnError
from mocae.files import Record, read_record, read_tensors
from mocae.models import LabelledRow, LoadedBase, Steps, batch_of, decoder_layers, take_steps

__all__ = ["AcceptedAnswer", "OutputCalibrators", "fit_output_calibrators"]

_VERSION = 1


class _Record(Record):
    """`output.json`."""

    version: int
    from_layer: NonNegativeInt


class OutputCalibrators(nn.Module):
    """h + up (down h) on what leaves each decoder layer from `from_layer` up, after the experts were fused in it.

    `up` starts at zero, so that untrained calibrators change nothing, bit for bit.

    Args:
        from_layer: first layer with a residual.
        n_layers: layers of the model.
        hidden_size: D.
        rank: width of each residual.
        seed: of `down`.

    Reference: AlignX (arXiv 2602.07381), calibrated outputs of the experts.
    Deviation: the paper gives no formula; a zero-initialised low-rank residual is ours.
    """

    def __init__(self, *, from_layer: int, n_layers: int, hidden_size: int, rank: int, seed: int = 0) -> None:
        super().__init__()
        n = n_layers - from_layer
        generator = torch.Generator().manual_seed(seed)
        self.from_layer = from_layer
        self.down = nn.Parameter(torch.randn(n, rank, hidden_size, generator=generator) / math.sqrt(hidden_size))
        self.up = nn.Parameter(torch.zeros(n, hidden_size, rank))

    @property
    def n_parameters(self) -> int:
        """Number of values."""
        return self.down.numel() + self.up.numel()

    def residual(self, hidden: Float[Tensor, "B T D"], index: int) -> Float[Tensor, "B T D"]:
        """Return what the calibrator of layer `from_layer + index` adds."""
        down, up = (factor[index].to(hidden.device, hidden.dtype) for factor in (self.down, self.up))
        return (hidden @ down.T) @ up.T

    @contextmanager
    def attached(self, model: nn.Module, *, rows: Bool[Tensor, " B"] | None = None) -> Iterator[None]:
        """Return a context in which the model's layers carry the residuals; afterwards it is as before.

        Args:
            model: the base model.
            rows: which rows of a batch carry them; None: all.

        Raises:
            ModelMismatchError: the model has other layers than the calibrators were made for.
        """
        layers = decoder_layers(model)
        if len(layers) != self.from_layer + len(self.down):
            raise ModelMismatchError(
                f"output calibrators stand behind layers {self.from_layer} to {self.from_layer + len(self.down) - 1}, "
                f"the model has {len(layers)} layers; use the base model they were trained on"
            )

        def hook(index: int) -> Any:
            def corrected(hidden: Tensor) -> Tensor:
                residual = self.residual(hidden, index)
                return hidden + (residual if rows is None else residual * rows[:, None, None])

            def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
                return (corrected(output[0]), *output[1:]) if isinstance(output, tuple) else corrected(output)

            return after

        handles = [layer.register_forward_hook(hook(i)) for i, layer in enumerate(layers[self.from_layer :])]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def save(self, folder: Path) -> None:
        """Write `output.safetensors` and `output.json` into an existing folder."""
        tensors = {"down": self.down.detach().cpu().contiguous(), "up": self.up.detach().cpu().contiguous()}
        save_file(tensors, str(folder / "output.safetensors"))
        record = {"version": _VERSION, "from_layer": self.from_layer}
        (folder / "output.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "OutputCalibrators":
        """Return the calibrators written by `save`, equal bit for bit and frozen.

        Raises:
            ArtifactError: a file is missing, damaged or of another version.
        """
        try:
            record = read_record(folder / "output.json", _Record)
            tensors = read_tensors(folder / "output.safetensors")
            if record.version != _VERSION:
                raise ValueError(f"version {record.version!r}, this mocae reads version {_VERSION}")
            down, up, first = tensors["down"], tensors["up"], record.from_layer
            if down.dim() != 3 or up.shape != (len(down), down.shape[2], down.shape[1]):
                raise ValueError(f"factors of shape {tuple(down.shape)} and {tuple(up.shape)} do not fit")
            if not (down.isfinite().all() and up.isfinite().all()):
                raise ValueError("factors are not finite")
        except Exception as error:  # safetensors, JSON, missing keys and shapes all mean the same to the reader
            raise ArtifactError(
                f"{folder}: the output calibrators cannot be read ({type(error).__name__}: {error}); "
                "run `mocae run` again to refit them"
            ) from error
        made = cls(from_layer=first, n_layers=first + len(down), hidden_size=down.shape[2], rank=down.shape[1])
        made.down, made.up = nn.Parameter(down), nn.Parameter(up)
        return made.requires_grad_(False)


@dataclass(frozen=True, slots=True, eq=False)
class AcceptedAnswer:
    """A formatted prompt, an answer to it that was accepted, and the weights (K,) the router gives this prompt."""

    prompt: str
    response: str
    alpha: Float[Tensor, " K"]


def fit_output_calibrators(
    base: LoadedBase,
    bank: ExpertBank,
    calibrators: OutputCalibrators,
    answers: Sequence[AcceptedAnswer],
    *,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    max_length: int,
    seed: int,
) -> Steps:
    """Train calibrators in place on accepted answers, each under its own weights; base and experts do not change.

    The loss is the language model's, on responses alone. AdamW without weight decay, a cosine to zero.

    Args:
        base: model and tokenizer.
        bank: experts, attached.
        calibrators: to be trained.
        answers: to learn.
        learning_rate: peak.
        epochs: passes over the answers.
        batch_size: answers a step.
        max_length: tokens a row is cut to; one whose prompt alone fills them is left out.
        seed: of the order.

    Raises:
        DataError: no answers, or none with room for a response.
        TrainingError: the loss is not finite.
    """
    rows = _encoded(base.tokenizer, answers, max_length)
    device, pad = base.model.device, base.tokenizer.pad_token_id
    frozen = [parameter for parameter in base.model.parameters() if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    calibrators.to(device).requires_grad_(True)

    def loss(some: Sequence[tuple[LabelledRow, Tensor]]) -> tuple[Tensor, Tensor]:
        batch, _ = batch_of([row for row, _ in some], pad=pad, device=device)
        # The weights stay in force for the pass alone; what they did is in its graph.
        with bank.weights(torch.stack([alpha for _, alpha in some]).to(device)):
            language = base.model(**batch, use_cache=False).loss
        return language, torch.zeros((), device=device)

    try:
        with calibrators.attached(base.model):
            return take_steps(
                [{"params": list(calibrators.parameters()), "weight_decay": 0.0}],
                rows,
                loss,
                learning_rate=learning_rate,
                epochs=epochs,
                batch_size=batch_size,
                seed=seed,
                label="routing.output",
            )
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
        calibrators.requires_grad_(False)


def _encoded(tokenizer: Any, answers: Sequence[AcceptedAnswer], max_length: int) -> list[tuple[LabelledRow, Tensor]]:
    """Return tokens and labels of each answer with its weights."""
    if not answers:
        raise NothingToLearnError(
            "output calibrators learn from accepted answers to calibration prompts, and there are none; give more "
            "calibration prompts, raise routing.outcome.max_prompts, or set routing.output.rank to null"
        )
    encoded = [(LabelledRow.of(tokenizer, a.prompt, a.response, max_length), a.alpha) for a in answers]
    rows = [(row, alpha) for row, alpha in encoded if row is not None]
    if not rows:
        raise DataError(
            f"output calibrators: of {len(answers)} accepted answers none leaves room for a response in {max_length} "
            "tokens; raise experts.max_length"
        )
    return rows
