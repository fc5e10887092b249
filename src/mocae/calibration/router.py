"""The AlignX router: from pooled hidden states of a prompt to one probability an expert."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from mocae.calibration.fractal import FractalCalibrator, FractalScore
from mocae.calibration.latent import LatentSpace
from mocae.calibration.natural import NaturalCalibrator
from mocae.errors import ArtifactError, ModelMismatchError

__all__ = ["AlignXRouter", "RouterInputs"]

_VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class RouterInputs:
    """What the linear map and the calibrators make of prompts, before any weight: phi, F and N, standardised.

    Attributes:
        phi: (B, F) features.
        fractal: (B, K) geometry scores.
        natural: (B, K) semantics scores.
    """

    phi: Float[Tensor, "B F"]
    fractal: Float[Tensor, "B K"]
    natural: Float[Tensor, "B K"]


@dataclass(frozen=True, slots=True, eq=False)
class Standardiser:
    """Shift and scale of columns, fitted once."""

    mean: Float[Tensor, " C"]
    std: Float[Tensor, " C"]

    @classmethod
    def fit(cls, values: Float[Tensor, "N C"]) -> "Standardiser":
        """Return the standardiser of these rows; a column that does not vary becomes 0."""
        std = values.std(0, unbiased=False)
        return cls(values.mean(0), torch.where(std > 1e-6, std, torch.inf))

    def __call__(self, values: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        """Return the standardised rows."""
        return (values - self.mean) / self.std


@dataclass(frozen=True, slots=True, eq=False)
class AlignXRouter:
    """s = W phi + b + lambda1 F + lambda2 N; alpha = softmax(s / T). Frozen; made by `mocae.calibration.fit_router`.

    Attributes:
        axes: names of the experts, in the order of the weights.
        latent: the latent space.
        fractal: geometry calibrator.
        natural: semantics calibrator.
        scalers: standardisers of phi, F and N.
        weight: (K, F).
        bias: (K,).
        lambdas: (lambda1, lambda2).
        temperature: T.
        projections: whether phi holds the projections on the axis subspaces.
        fractal_score: which reading of the local dimension F is.
        layer: decoder layer whose input is read.
        pool: how it is pooled.

    Reference: AlignX (arXiv 2602.07381), stage 2: W_r in R^{3 x 1024}, lambda1 = 0.6, lambda2 = 0.4, T = 1.
    Deviation: scores are standardised on calibration prompts, T may be fitted; see `docs/paper-map.md`.
    """

    axes: tuple[str, ...]
    latent: LatentSpace
    fractal: FractalCalibrator
    natural: NaturalCalibrator
    scalers: tuple[Standardiser, Standardiser, Standardiser]
    weight: Float[Tensor, "K F"]
    bias: Float[Tensor, " K"]
    lambdas: tuple[float, float]
    temperature: float
    projections: bool
    fractal_score: FractalScore
    layer: int
    pool: str

    def inputs(self, pooled: Float[Tensor, "B P"]) -> RouterInputs:
        """Return the standardised inputs of prompts given by their pooled hidden states."""
        z = self.latent.encode(pooled)
        raw = (
            self.latent.features(z, projections=self.projections),
            self.fractal.score(z, kind=self.fractal_score),
            self.natural.score(z),
        )
        return RouterInputs(*(scale(values) for scale, values in zip(self.scalers, raw, strict=True)))

    def logits(self, pooled: Float[Tensor, "B P"]) -> Float[Tensor, "B K"]:
        """Return s, before the temperature."""
        if pooled.shape[1] != self.latent.mean.shape[0]:
            raise ModelMismatchError(
                f"the router reads {self.latent.mean.shape[0]} pooled values a prompt, got {pooled.shape[1]}; "
                "it was fitted for another base model or another features.pool"
            )
        x = self.inputs(pooled)
        return x.phi @ self.weight.T + self.bias + self.lambdas[0] * x.fractal + self.lambdas[1] * x.natural

    def probs(self, pooled: Float[Tensor, "B P"]) -> Float[Tensor, "B K"]:
        """Return alpha, rows that sum to 1."""
        return (self.logits(pooled) / self.temperature).softmax(-1)

    def _tensors(self) -> dict[str, Tensor]:
        named: dict[str, Tensor] = {"weight": self.weight, "bias": self.bias}
        for part in ("latent", "fractal", "natural"):
            named |= {f"{part}.{key}": value for key, value in getattr(self, part)._asdict().items()}
        for name, scaler in zip(("phi", "fractal", "natural"), self.scalers, strict=True):
            named |= {f"scalers.{name}.mean": scaler.mean, f"scalers.{name}.std": scaler.std}
        return {name: tensor.contiguous().clone() for name, tensor in named.items()}

    def save(self, folder: Path) -> None:
        """Write `router.safetensors` and `router.json` into an existing folder."""
        save_file(self._tensors(), str(folder / "router.safetensors"))
        plain = ("axes", "lambdas", "temperature", "projections", "fractal_score", "layer", "pool")
        record = {"version": _VERSION, **{name: getattr(self, name) for name in plain}}
        (folder / "router.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "AlignXRouter":
        """Return the router written by `save`, equal bit for bit.

        Raises:
            ArtifactError: a file is missing, damaged or of another version.
        """
        try:
            record: dict[str, Any] = json.loads((folder / "router.json").read_text(encoding="utf-8"))
            tensors = load_file(str(folder / "router.safetensors"))
            if record.pop("version") != _VERSION:
                raise ArtifactError(f"{folder}/router.json: this version of mocae reads router version {_VERSION}")
            scaler = lambda name: Standardiser(tensors[f"scalers.{name}.mean"], tensors[f"scalers.{name}.std"])  # noqa: E731
            part = lambda name, kind: kind(*(tensors[f"{name}.{key}"] for key in kind._fields))  # noqa: E731
            return cls(
                axes=tuple(record.pop("axes")),
                lambdas=tuple(record.pop("lambdas")),
                latent=part("latent", LatentSpace),
                fractal=part("fractal", FractalCalibrator),
                natural=part("natural", NaturalCalibrator),
                scalers=(scaler("phi"), scaler("fractal"), scaler("natural")),
                weight=tensors["weight"],
                bias=tensors["bias"],
                **record,
            )
        except ArtifactError:
            raise
        except Exception as error:  # safetensors, JSON and missing keys all mean the same to the reader
            raise ArtifactError(f"{folder}: the router cannot be read ({error}); run `mocae run` again to refit it") from error
