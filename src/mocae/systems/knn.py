"""Nearest neighbours among the calibration prompts: a router without training that is hard to beat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeInt, PositiveInt
from safetensors.torch import save_file
from torch import Tensor

from mocae.calibration import LatentSpace
from mocae.errors import NothingToLearnError
from mocae.files import Record, read_record, read_tensors
from mocae.policies import UNSTEERED, Policy, PromptBatch, Reading, SteeringVectors, Sureness, shape_weights
from mocae.stages.fitting import acceptable_by_prompt
from mocae.stages.run import Made, Run
from mocae.stages.store import Stage
from mocae.systems.base import BankSystem
from mocae.systems.routers import LearningOptions, LearningSystem

__all__ = ["Knn", "KnnPolicy"]


class KnnOptions(LearningOptions):
    """Options of a `knn` system."""

    n_neighbours: Annotated[PositiveInt, Field(le=10_000)] = 10
    """Calibration prompts that vote; at most all."""


class _Reading(Record):
    layer: NonNegativeInt
    pool: str


class KnnPolicy(Policy):
    """Weight 1 for the expert that was right most often on the nearest calibration prompts.

    Nearness is the cosine in the latent space. The chance of an expert is its share of accepted answers among the
    neighbours, with one accepted and one rejected answer added; of equal experts the one that is right more often on
    all calibration prompts answers.

    Args:
        latent: from pooled hidden states to the space.
        points: (N, k), the calibration prompts in it.
        accepted: (N, K), which expert's answer was accepted.
        n_neighbours: prompts that vote.
        reads: where hidden states are read.
    """

    calibrated = True

    def __init__(
        self, latent: LatentSpace, points: Tensor, accepted: Tensor, *, n_neighbours: int, reads: Reading
    ) -> None:
        self.reads = reads
        self._latent = latent
        self._points = torch.nn.functional.normalize(points.double(), dim=1)
        self._accepted = accepted.double()
        self._n = min(n_neighbours, len(points))

    def chances(self, batch: PromptBatch) -> Float[Tensor, "B K"]:
        """Return the smoothed share of accepted answers of each expert among the neighbours of each prompt."""
        assert batch.pooled is not None
        points = torch.nn.functional.normalize(self._latent.encode(batch.pooled).double(), dim=1)
        nearest = (points @ self._points.T).topk(self._n, dim=1).indices
        return (self._accepted[nearest].sum(1) + 1) / (self._n + 2)

    def route(self, batch: PromptBatch) -> Float[Tensor, "B K"]:
        """Return one weight an expert for each prompt."""
        return self.route_steered(batch, UNSTEERED)

    def route_steered(self, batch: PromptBatch, steering: SteeringVectors) -> Float[Tensor, "B K"]:
        """Return the steered weights: votes are shares, of which the largest takes all."""
        votes = self.chances(batch) + 1e-6 * self._accepted.mean(0)
        return shape_weights(votes / votes.sum(1, keepdim=True), steering, top_k=1).float()

    def sureness(self, batch: PromptBatch) -> Sureness:
        """Return the chance of the expert that answers; novelty is not measured."""
        chosen = self.route(batch).argmax(1, keepdim=True)
        confidence = self.chances(batch).gather(1, chosen)[:, 0].float()
        return Sureness(confidence, torch.full_like(confidence, torch.nan))


class Knn(LearningSystem, BankSystem):
    """The expert that was right most often on the nearest calibration prompts.

    Reference: public comparisons of routers find nearest neighbours hard to beat (RouterBench, arXiv 2403.12031).
    """

    Options = KnnOptions
    weights_mean = "chances"

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return the experts, and the judged calibration prompts in the latent space, "neighbours"."""
        routing = self.routing(run.recipe)
        samples = run.verdicts(routing)

        def make(folder: Path) -> None:
            features = run.features_read()
            accepted = acceptable_by_prompt(samples, [f"expert:{axis}" for axis in self.axes])
            rows = [(i, row.id) for i, row in enumerate(run.rows.all_of("calibration")) if row.id in accepted]
            if not rows:
                raise NothingToLearnError(
                    f"systems.{self.name}: no calibration prompt has a verdict on every expert's answer"
                )
            tensors = {f"latent.{name}": value for name, value in features.latent._asdict().items()}
            tensors["points"] = features.latent.encode(features.calibration[[i for i, _ in rows]])
            tensors["accepted"] = torch.tensor([accepted[row] for _, row in rows])
            save_file({k: v.contiguous() for k, v in tensors.items()}, str(folder / "neighbours.safetensors"))
            (folder / "reading.json").write_text(json.dumps(reading) + "\n", encoding="utf-8")

        reading = {"layer": run.layer, "pool": run.recipe.features.pool}
        inputs = {"used": sorted(run.verdict_ids(routing)), "reading": reading}
        needs = (run.features, run.outcomes_for(routing))
        return {**super().stages(run), "neighbours": run.store.stage(f"knn/{self.folder}", inputs, make, needs=needs)}

    def choose(self, made: Made) -> Policy:
        """Return the policy."""
        folder = made.folders["neighbours"]
        tensors = read_tensors(folder / "neighbours.safetensors")
        latent = LatentSpace(*(tensors[f"latent.{name}"] for name in LatentSpace._fields))
        reading = read_record(folder / "reading.json", _Reading)
        policy = KnnPolicy(
            latent,
            tensors["points"],
            tensors["accepted"],
            n_neighbours=self.options.n_neighbours,
            reads=Reading(reading.layer, reading.pool),
        )
        chances = policy.chances(PromptBatch([""], latent.mean[None]))  # what does not fit is found here
        if chances.shape != (1, len(self.axes)) or not chances.isfinite().all():
            raise ValueError(f"its chances are {chances.tolist()} for {len(self.axes)} axes")
        return policy
