"""Experts that are whole feed-forward blocks: copies of the base model's, fine-tuned in full."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from torch import nn

from mocae.errors import ArtifactError
from mocae.experts.finetune import train_supervised
from mocae.experts.lora import given_back
from mocae.experts.trainer import Optimisation, TrainingRecord
from mocae.files import read_tensors
from mocae.models import LoadedBase, mix_feed_forward

__all__ = ["finetune_blocks", "load_blocks"]

_FILE = "blocks.safetensors"


def finetune_blocks(
    base: LoadedBase,
    pairs: Sequence[dict[str, str]],
    folder: Path,
    *,
    from_layer: int,
    optimisation: Optimisation,
    seed: int,
    label: str,
    work: Path | None = None,
) -> TrainingRecord:
    """Train a copy of every feed-forward block from `from_layer` up, all else frozen, and return what happened.

    The copies are fp32 whatever the base model is, and written to `blocks.safetensors` as "<layer>.<name>". The base
    model is used in place and given back as it was. Arguments and errors as in `finetune`.

    Raises:
        DataError: no pairs.
        ModelMismatchError: a decoder layer has no single feed-forward block.
        TrainingError: see `finetune`.

    Reference: H3Fusion (arXiv 2411.17792): one aligned model an axis, of which the feed-forward blocks are used.
    Deviation: all else is frozen, so that the blocks fit each other; there whole models are tuned with LoRA and the
        blocks of the result are taken.
    """
    transformers.set_seed(seed)
    base.model.requires_grad_(False)
    with given_back(base.model):
        # A mixture of one: its gate has no choice, and the block may be fp32 in a model that is not.
        mixtures = mix_feed_forward(base.model, n_experts=1, top_k=1, from_layer=from_layer, dtype=torch.float32)
        blocks = {layer: mixture.experts[0] for layer, mixture in mixtures.items()}
        for mixture in mixtures.values():
            mixture.requires_grad_(False)
            mixture.experts.requires_grad_(True)
        record = train_supervised(
            base, base.model, pairs, folder, optimisation=optimisation, seed=seed, label=label, work=work
        )
        tensors = {
            f"{i}.{name}": t.detach().contiguous() for i, b in blocks.items() for name, t in b.state_dict().items()
        }
        save_file(tensors, str(folder / _FILE))
    return record


def load_blocks(blocks: Mapping[int, nn.Module], folder: Path) -> None:
    """Read blocks written by `finetune_blocks` into modules by decoder layer, in place.

    Raises:
        ArtifactError: the file is missing, damaged, or of other blocks.
    """
    try:
        tensors = read_tensors(folder / _FILE)
        for layer, block in blocks.items():
            start = f"{layer}."
            block.load_state_dict({n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)})
    except Exception as error:
        reason = " ".join(str(error).split())  # torch's list of what does not fit has several lines
        raise ArtifactError(f"{folder}/{_FILE}: the blocks cannot be read ({reason}); run the recipe again") from error
