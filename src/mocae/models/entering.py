"""What enters a decoder layer, seen while a pass runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mocae.errors import ConfigError
from mocae.models.layers import decoder_layers

__all__ = ["StopForward", "at_layer", "layer_inputs"]


class StopForward(Exception):
    """Ends a forward pass whose upper layers nobody needs; not an error."""


@contextmanager
def at_layer(model: nn.Module, layer: int, see: Callable[[Tensor], None]) -> Iterator[None]:
    """Return a context in which `see` is called with the hidden states that enter decoder layer `layer`, in each pass.

    Args:
        model: a decoder model.
        layer: 0 sees the embeddings, the number of layers what leaves the last one (before the final norm).
        see: called before the layer runs; it may raise to end the pass there.

    Raises:
        ConfigError: the model has fewer layers.
    """
    layers = decoder_layers(model)
    if not 0 <= layer <= len(layers):
        raise ConfigError(f"layer {layer} asked for; the model has {len(layers)} decoder layers (0 to {len(layers)})")

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        see(args[0] if args else kwargs["hidden_states"])

    def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        see(output[0] if isinstance(output, tuple) else output)

    if layer < len(layers):
        handle = layers[layer].register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = layers[-1].register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def layer_inputs(model: nn.Module, layer: int, *, stop: bool) -> Iterator[list[Tensor]]:
    """Return a context that collects the hidden states entering decoder layer `layer`, one tensor a pass.

    Args:
        model: a decoder model.
        layer: see `at_layer`.
        stop: end the pass there, so that the layers above cost nothing: `StopForward` comes out of the model's call.

    Raises:
        ConfigError: the model has fewer layers.
    """
    collected: list[Tensor] = []

    def keep(hidden: Tensor) -> None:
        collected.append(hidden.detach())
        if stop:
            raise StopForward

    with at_layer(model, layer, keep):
        yield collected
