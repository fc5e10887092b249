"""The TrinityX router: one weight an expert for every token and feed-forward block."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from safetensors.torch import save_file
from torch import Tensor, nn

from mocae.errors import ArtifactError, ConfigError
from mocae.files import Record, read_record, read_tensors

__all__ = ["TrinityXRouter"]

_VERSION = 1


class _Record(Record):
    """`trinityx.json`."""

    version: int
    experts: list[str]
    layers: list[NonNegativeInt]
    hidden_size: PositiveInt
    tau: PositiveFloat
    top_k: PositiveInt | None
    norm: bool


class TrinityXRouter(nn.Module):
    """alpha_i = softmax(z_i / tau), fused with a fixed importance: w_i = alpha_i gamma_i / sum_j alpha_j gamma_j.

    Args:
        experts: names, in the order of weights.
        layers: decoder layers that route, each with a linear map of its own.
        hidden_size: D.
        gamma: (K,) fixed importance of each expert, positive; all ones leaves alpha as it is. Because w is
            softmax((z + tau log gamma) / tau), gamma is exactly a constant added to the bias of z, which is trained: it
            moves where training starts, and the terms that read alpha alone, not what the router can express.
        tau: softmax temperature.
        top_k: experts a token uses; None: all. All of them learn from every token.
        norm: whether the fused output is normalised and added again with a learned gain, zero at the start.

    Raises:
        ConfigError: gamma is not positive, or top_k not in 1..K.

    Reference: TrinityX (arXiv 2509.08486): router of MoCaE, tau = 0.7, gamma fixed and normalised, LayerNorm and
        residual after fusion.
    Deviation: the fusion formula is not stated in full; this is its plain reading. LayerNorm on a whole feed-forward
        output would destroy a pretrained block, so the normalised output is added with a gain that starts at zero.
        The paper processes all experts at once and is also said to route to one; with `top_k` the answers are those of
        the kept experts and the gradient that of all.
    """

    def __init__(
        self,
        experts: Sequence[str],
        *,
        layers: Sequence[int],
        hidden_size: int,
        gamma: Float[Tensor, " K"],
        tau: float = 0.7,
        top_k: int | None = None,
        norm: bool = False,
    ) -> None:
        super().__init__()
        k = len(experts)
        if gamma.shape != (k,) or not bool((gamma > 0).all()):
            raise ConfigError(
                f"gamma is {gamma.tolist()}; one positive number an expert is needed ({', '.join(experts)})"
            )
        if top_k is not None and not 1 <= top_k <= k:
            raise ConfigError(f"top_k is {top_k}; 1 to {k} experts can be used")
        self.experts = tuple(experts)
        self.layers = tuple(layers)
        self.tau = tau
        self.top_k = top_k
        # Zero: before training every expert has its share of gamma.
        self.weight = nn.Parameter(torch.zeros(len(layers), k, hidden_size))
        self.bias = nn.Parameter(torch.zeros(len(layers), k))
        self.gain = nn.Parameter(torch.zeros(len(layers), hidden_size)) if norm else None
        self.register_buffer("gamma", gamma.float())
        self.gamma: Tensor

    def logits(self, hidden: Float[Tensor, "B T D"], layer: int) -> Float[Tensor, "B T K"]:
        """Return z, in fp32, for the tokens entering the feed-forward block of decoder layer `layer`."""
        i = self.layers.index(layer)
        states = hidden.float()
        # The scale of hidden states grows with depth; unit RMS keeps one learning rate right for all layers.
        states = states * torch.rsqrt(states.square().mean(-1, keepdim=True) + 1e-6)
        return states @ self.weight[i].T + self.bias[i]

    def alpha(self, hidden: Float[Tensor, "B T D"], layer: int) -> Float[Tensor, "B T K"]:
        """Return softmax(z / tau), before importance and pruning."""
        return (self.logits(hidden, layer) / self.tau).softmax(-1)

    def fuse(self, alpha: Float[Tensor, "*rest K"]) -> Float[Tensor, "*rest K"]:
        """Return the weights of the experts: alpha times gamma, the top k of them, normalised to sum 1.

        The gradient is that of all experts' weights, pruned or not (straight-through): one kept expert has weight 1
        whatever its gate says, so its own gradient is 0, and an expert that is not kept must learn that it would help.
        """
        weights = alpha * self.gamma
        dense = weights / weights.sum(-1, keepdim=True)
        if self.top_k is None or self.top_k >= weights.shape[-1]:
            return dense
        kept = weights.topk(self.top_k, dim=-1).indices
        pruned = weights.detach() * torch.zeros_like(weights).scatter(-1, kept, 1.0)
        return pruned / pruned.sum(-1, keepdim=True) + (dense - dense.detach())

    def renormalise(self, fused: Float[Tensor, "B T D"], layer: int) -> Float[Tensor, "B T D"]:
        """Return the block's output with LayerNorm and residual after fusion; unchanged without `norm`."""
        if self.gain is None:
            return fused
        normal = nn.functional.layer_norm(fused.float(), fused.shape[-1:])
        return fused + (self.gain[self.layers.index(layer)] * normal).to(fused.dtype)

    def save(self, folder: Path) -> None:
        """Write `trinityx.safetensors` and `trinityx.json` into an existing folder."""
        tensors = {name: value.detach().contiguous() for name, value in self.state_dict().items()}
        save_file(tensors, str(folder / "trinityx.safetensors"))
        record = {
            "version": _VERSION,
            "experts": self.experts,
            "layers": self.layers,
            "hidden_size": self.weight.shape[2],
            "tau": self.tau,
            "top_k": self.top_k,
            "norm": self.gain is not None,
        }
        (folder / "trinityx.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "TrinityXRouter":
        """Return the router written by `save`.

        Raises:
            ArtifactError: a file is missing, damaged or of another version.
        """
        try:
            record = read_record(folder / "trinityx.json", _Record)
            if record.version != _VERSION:
                raise ArtifactError(f"{folder}/trinityx.json: this mocae reads version {_VERSION}")
            tensors = read_tensors(folder / "trinityx.safetensors")
            router = cls(gamma=tensors["gamma"], **record.model_dump(exclude={"version"}))
            router.load_state_dict(tensors)
        except ArtifactError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())  # torch's list of what does not fit has several lines
            raise ArtifactError(
                f"{folder}: the TrinityX router cannot be read ({reason}); run the recipe again"
            ) from error
        return router.requires_grad_(False).eval()
