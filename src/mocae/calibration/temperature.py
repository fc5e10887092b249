"""Temperature: how sure a router may be of its first choice, fitted on prompts it was not fitted on."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mocae.errors import DataError

__all__ = ["fit_temperature"]

_LOWEST, _HIGHEST = 0.05, 20.0


def fit_temperature(logits: Float[Tensor, "N K"], acceptable: Bool[Tensor, "N K"]) -> float:
    """Return T such that the largest of softmax(logits / T) is the probability that this expert's answer is acceptable.

    Minimises the log loss of that one event a prompt. (The usual multi-class log loss would not do: several experts, or
    none, can be acceptable.) One T changes no ranking.

    Args:
        logits: held out: from routers that did not see these prompts.
        acceptable: outcomes of the experts.

    Raises:
        DataError: no prompts.

    Reference: Guo et al. 2017 (arXiv 1706.04599), temperature scaling.

    >>> sure = torch.tensor([[4.0, 0.0]] * 4)
    >>> right = torch.tensor([[True, False], [True, False], [True, False], [False, False]])
    >>> round(fit_temperature(sure, right), 1)  # three of four right: confidence 0.75 = sigmoid(4 / T)
    3.6
    """
    if len(logits) == 0:
        raise DataError(
            "temperature: no held-out prompts; give calibration prompts, or set routing.temperature to a number"
        )
    logits = logits.double()
    right = acceptable.gather(1, logits.argmax(1, keepdim=True))[:, 0].double()

    def loss(temperature: float) -> float:
        sure = (logits / temperature).softmax(1).amax(1).clamp(1e-9, 1 - 1e-9)
        return float(torch.nn.functional.binary_cross_entropy(sure, right))

    # A grid, since with more than two experts the loss can have several minima.
    grid = torch.logspace(math.log10(_LOWEST), math.log10(_HIGHEST), steps=1001, dtype=torch.float64)
    return float(min(grid.tolist(), key=loss))
