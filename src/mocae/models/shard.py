"""A base model cut over several processes, so that it may be larger than one of their accelerators."""

from __future__ import annotations

from typing import Any

from torch import nn

from mocae.distributed import size
from mocae.errors import ConfigError
from mocae.models.layers import decoder_layers

__all__ = ["is_sharded", "reshard", "shard"]


def shard(model: Any, device: str) -> None:
    """Cut every parameter of `model` over the processes of the job, in place (FSDP2, `fully_shard`).

    A process holds 1 / N of each weight and gathers a decoder layer when it is about to compute. Every process must
    then run the model equally often, on inputs of its own. Results are those of the whole model, bit for bit.
    Parameters are frozen: what is trained on top of a sharded base is an adapter, which every process holds whole.

    Args:
        model: on the CPU, so that the whole never has to fit an accelerator.
        device: "cuda" or "cpu", where the parts go.

    Reference: Zhao et al., PyTorch FSDP (arXiv:2304.11277), in its second version.

    Raises:
        ConfigError: there is only one process.
    """
    if size() == 1:
        raise ConfigError(
            "base.shard: true cuts the base model over several processes, and there is one; start the run with "
            "`accelerate launch` (recipes/accelerate/), or leave base.shard out"
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model.requires_grad_(False)
    mesh = init_device_mesh(device, (size(),))
    for layer in decoder_layers(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_sharded(model: nn.Module) -> bool:
    """Return whether the model's parameters are cut over several processes."""
    if size() == 1:
        return False
    from torch.distributed.tensor import DTensor

    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def reshard(model: nn.Module) -> None:
    """Give back what the last pass gathered: outside a pass a sharded model holds its own part of the weights only."""
    if is_sharded(model):
        from torch.distributed.fsdp import FSDPModule

        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
