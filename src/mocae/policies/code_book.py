"""A few mixtures in place of all of them: for engines that hold whole adapters and cannot weigh experts per request."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocae.errors import ArtifactError
from mocae.files import Record, read_record
from mocae.policies.base import Policy, PromptBatch

__all__ = ["CodeBook", "CodeBookPolicy"]


class _Record(Record):
    experts: list[str]
    mixtures: dict[str, list[float]]


@dataclass(frozen=True, slots=True, eq=False)
class CodeBook:
    """A few mixtures of the experts.

    Attributes:
        experts: names, in the order of weights.
        mixtures: (M, K), one mixture a row.
    """

    experts: tuple[str, ...]
    mixtures: Float[Tensor, "M K"]

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each mixture, as a server knows it."""
        return tuple(f"mixture-{i:02d}" for i in range(len(self.mixtures)))

    def nearest(self, alpha: Float[Tensor, "B K"]) -> Int[Tensor, " B"]:
        """Return for each row of weights the mixture with the smallest Euclidean distance; the first of equal ones."""
        return torch.cdist(alpha.float(), self.mixtures).argmin(dim=1)

    def distance(self, alpha: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
        """Return the total variation between each row and its mixture: the share of weight that moved, in [0, 1]."""
        return (alpha - self.mixtures[self.nearest(alpha)]).abs().sum(1) / 2

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        rows = {name: row.tolist() for name, row in zip(self.names, self.mixtures, strict=True)}
        record = {"experts": list(self.experts), "mixtures": rows}
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "CodeBook":
        """Return the code book written by `save`.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        try:
            record = read_record(path, _Record, remedy="export again")
            mixtures = torch.tensor(list(record.mixtures.values()), dtype=torch.float32)
            experts = tuple(record.experts)
            if mixtures.dim() != 2 or mixtures.shape[1] != len(experts) or not mixtures.isfinite().all():
                raise ValueError(f"mixtures of shape {tuple(mixtures.shape)} for {len(experts)} experts")
        except ValueError as error:
            raise ArtifactError(f"{path}: no code book written by mocae ({error}); export again") from error
        return cls(experts, mixtures)


class CodeBookPolicy(Policy):
    """Another policy, its weights replaced by the nearest mixture of a code book."""

    def __init__(self, policy: Policy, book: CodeBook) -> None:
        self.policy = policy
        self.book = book
        self.reads = policy.reads

    def route(self, batch: PromptBatch) -> Float[Tensor, "B K"]:
        """Return for each prompt the mixture nearest to what the policy gives."""
        return self.book.mixtures[self.book.nearest(self.policy.route(batch))]
