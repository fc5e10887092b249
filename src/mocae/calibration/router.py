"""The AlignX router: from pooled hidden states of a prompt to one probability an expert."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float
from pydantic import Field, NonNegativeInt, PositiveFloat
from safetensors.torch import save_file
from torch import Tensor

from mocae.calibration.fractal import FractalCalibrator
from mocae.calibration.latent import LatentSpace
from mocae.calibration.natural import NaturalCalibrator
from mocae.calibration.novelty import Novelty
from mocae.errors import ArtifactError, ModelMismatchError
from mocae.files import Record, check_record, read_json, read_tensors

__all__ = [
    "ROUTER_VERSION",
    "AlignXRouter",
    "Beliefs",
    "CalibrationMethod",
    "RouterInputs",
    "Standardiser",
    "chances_of",
]

ROUTER_VERSION = 4
"""Of the files a router is kept in."""
CalibrationMethod = Literal["chances", "temperature"]

_SCALED = ("phi", "fractal", "natural")


class _Plain(Record):
    """`router.json`: what of a router is no array."""

    axes: Annotated[list[str], Field(min_length=1)]
    lambdas: Annotated[list[float], Field(min_length=2, max_length=2)]
    temperature: PositiveFloat
    calibration: CalibrationMethod
    layer: NonNegativeInt
    pool: str


class _Version(Record):
    version: int


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

    def logits(self, weight: Tensor, bias: Tensor, lambdas: Sequence[float] | Tensor) -> Float[Tensor, "B K"]:
        """Return s = W phi + b + lambda1 F + lambda2 N."""
        return self.phi @ weight.T + bias + lambdas[0] * self.fractal + lambdas[1] * self.natural

    def rows(self, which: Bool[Tensor, " B"]) -> "RouterInputs":
        """Return the inputs of some of the prompts."""
        return RouterInputs(self.phi[which], self.fractal[which], self.natural[which])

    def double(self) -> "RouterInputs":
        """Return the inputs in float64, for fitting."""
        return RouterInputs(self.phi.double(), self.fractal.double(), self.natural.double())


class Standardiser(NamedTuple):
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


class Beliefs(NamedTuple):
    """What a router makes of prompts.

    Attributes:
        alpha: (B, K), weights of the experts; rows sum to 1.
        chances: (B, K), chance of each expert that its answer is acceptable; rows sum to anything from 0 to K.
        novelty: (B,), share of held-out calibration prompts that are more like the others; nan where none were kept.
    """

    alpha: Float[Tensor, "B K"]
    chances: Float[Tensor, "B K"]
    novelty: Float[Tensor, " B"]

    @property
    def confidence(self) -> Float[Tensor, " B"]:
        """Chance that the answer of the expert with the largest weight is acceptable."""
        return self.chances.gather(1, self.alpha.argmax(1, keepdim=True))[:, 0]


@dataclass(frozen=True, slots=True, eq=False)
class AlignXRouter:
    """s = W phi + b + lambda1 F + lambda2 N, one logit an expert. Frozen; made by `mocae.calibration.fit_router`.

    *Chances and weights.* The chance p_i that the answer of expert i is acceptable is one number an expert: several can
    be right, or none. With the calibration "chances" (the default) p_i = sigmoid(s_i), and the weights follow from
    the chances: alpha_i = p_i / sum_j p_j, of which `top_k` usually keeps one, since pure experts were judged and
    mixtures were not. Chances of prompts unlike the calibration prompts are lowered (`Novelty`), all by one factor of
    the odds, so the order of the experts stays. With "temperature", the papers' form, alpha = softmax(s / T) is both
    weight and chance, and the largest of K is never below 1 / K.

    Attributes:
        axes: names of the experts, in the order of the weights.
        latent: the latent space.
        fractal: geometry calibrator.
        natural: semantics calibrator.
        scalers: standardisers of phi, F and N.
        weight: (K, F).
        bias: (K,).
        lambdas: (lambda1, lambda2).
        temperature: T; 1 with "chances".
        calibration: how logits become weights and chances, see above.
        novelty: how unlike the calibration prompts a prompt is; None with "temperature".
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
    calibration: CalibrationMethod
    novelty: Novelty | None
    layer: int
    pool: str

    def inputs(self, pooled: Float[Tensor, "B P"]) -> RouterInputs:
        """Return the standardised inputs of prompts given by their pooled hidden states."""
        return self._inputs_at(self.latent.encode(pooled))

    def _inputs_at(self, z: Float[Tensor, "B k"]) -> RouterInputs:
        raw = (
            self.latent.features(z),
            self.fractal.score(z),
            self.natural.score(z),
        )
        return RouterInputs(*(scale(values) for scale, values in zip(self.scalers, raw, strict=True)))

    def spread(self) -> float:
        """Return the standard deviation of the logits over the training prompts that the router keeps.

        It is one number: the root of the mean of the experts' variances; 1 where no logit varies.
        """
        logits = self._inputs_at(self.fractal.cloud).logits(self.weight, self.bias, self.lambdas)
        return float(logits.var(0, unbiased=False).mean().sqrt()) or 1.0

    def logits(self, pooled: Float[Tensor, "B P"]) -> Float[Tensor, "B K"]:
        """Return s, before the temperature.

        Raises:
            ModelMismatchError: the number of pooled values is not the router's.
        """
        if pooled.shape[1] != self.latent.mean.shape[0]:
            raise ModelMismatchError(
                f"the router reads {self.latent.mean.shape[0]} pooled values a prompt, got {pooled.shape[1]}; "
                "it was fitted for another base model or another features.pool"
            )
        return self.inputs(pooled).logits(self.weight, self.bias, self.lambdas)

    def probs(self, pooled: Float[Tensor, "B P"], *, lift: Float[Tensor, " K"] | None = None) -> Float[Tensor, "B K"]:
        """Return alpha, rows that sum to 1; `lift` as in `beliefs`."""
        return self.beliefs(pooled, lift=lift).alpha

    def beliefs(self, pooled: Float[Tensor, "B P"], *, lift: Float[Tensor, " K"] | None = None) -> Beliefs:
        """Return weights, chances and novelty of prompts; raises as `logits` does.

        Args:
            pooled: their hidden states.
            lift: added to the logits, which then all fall by the most that one has risen: the order is that of the
                sums, and where several experts are nearly certain the one that is preferred still gets all the weight.
        """
        logits = self.logits(pooled)
        if lift is not None:
            logits = logits + lift - lift.amax().clamp_min(0)
        if self.novelty is None:
            alpha = (logits / self.temperature).softmax(-1)
            return Beliefs(alpha, alpha, torch.full((len(alpha),), torch.nan))
        distance = self.novelty.distance(self.latent.encode(pooled))
        return chances_of(logits, self.novelty, distance)

    def _tensors(self) -> dict[str, Tensor]:
        named: dict[str, Tensor] = {"weight": self.weight, "bias": self.bias}
        parts: dict[str, _Part] = {"latent": self.latent, "fractal": self.fractal, "natural": self.natural}
        if self.novelty is not None:
            parts["novelty"] = self.novelty
        parts |= {f"scalers.{name}": scaler for name, scaler in zip(_SCALED, self.scalers, strict=True)}
        for name, part in parts.items():
            named |= {f"{name}.{key}": value for key, value in part._asdict().items()}
        return {name: tensor.contiguous().clone() for name, tensor in named.items()}

    def save(self, folder: Path) -> None:
        """Write `router.safetensors` and `router.json` into an existing folder."""
        save_file(self._tensors(), str(folder / "router.safetensors"))
        record = {"version": ROUTER_VERSION, **{name: getattr(self, name) for name in _Plain.model_fields}}
        (folder / "router.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "AlignXRouter":
        """Return the router written by `save`, equal bit for bit.

        Raises:
            ArtifactError: a file is missing, damaged or of another version.
        """
        try:
            path = folder / "router.json"
            record = read_json(path)
            version = check_record(_Version, record, str(path)).version
            if version == 2 and record.get("calibration") in ("none", "temperature"):  # 3 changed the others alone
                version, record["calibration"] = 3, "temperature"
            if version == 3 and (record.pop("projections", 0), record.pop("fractal_score", 0)) == (True, "log_mass"):
                version = ROUTER_VERSION  # 4 dropped the other choices
            if version == ROUTER_VERSION:
                plain = check_record(_Plain, record, str(path))
                return cls._assembled(plain, read_tensors(folder / "router.safetensors"))
        except Exception as error:  # safetensors, JSON, missing keys and shapes all mean the same to the reader
            raise ArtifactError(
                f"{folder}: the router cannot be read ({type(error).__name__}: {error}); "
                "run `mocae run` again to refit it"
            ) from error
        raise ArtifactError(
            f"{folder}/router.json: router version {version!r}, this mocae reads version {ROUTER_VERSION}; "
            "run `mocae run` again to refit it"
        )

    @classmethod
    def _assembled(cls, plain: _Plain, tensors: dict[str, Tensor]) -> "AlignXRouter":
        """Return the router of these values, tried out on one prompt so that what does not fit is found here."""
        router = cls(
            **dict(plain) | {"axes": tuple(plain.axes), "lambdas": tuple(plain.lambdas)},
            latent=_part(LatentSpace, "latent", tensors),
            fractal=_part(FractalCalibrator, "fractal", tensors),
            natural=_part(NaturalCalibrator, "natural", tensors),
            scalers=(
                _part(Standardiser, "scalers.phi", tensors),
                _part(Standardiser, "scalers.fractal", tensors),
                _part(Standardiser, "scalers.natural", tensors),
            ),
            novelty=_part(Novelty, "novelty", tensors) if plain.calibration == "chances" else None,
            weight=tensors["weight"],
            bias=tensors["bias"],
        )
        alpha, chances, _ = router.beliefs(router.latent.mean[None])
        if alpha.shape != (1, len(router.axes)) or not (alpha.isfinite().all() and chances.isfinite().all()):
            raise ValueError(f"its weights are {alpha.tolist()} for {len(router.axes)} axes")
        return router


def chances_of(logits: Float[Tensor, "B K"], novelty: Novelty, distance: Float[Tensor, " B"]) -> Beliefs:
    """Return the beliefs that logits stand for under the calibration "chances".

    Args:
        logits: log-odds of the experts, as for known prompts.
        novelty: what lowers the chances of others.
        distance: of each prompt, see `Novelty.distance`.
    """
    lowered = logits - novelty.penalty(distance)[:, None]
    # Weights are those of known prompts: what lowers every chance alike says nothing about which expert to take.
    alpha = torch.nn.functional.logsigmoid(logits).softmax(-1)
    return Beliefs(alpha, lowered.sigmoid(), novelty.rank(distance))


_Part = LatentSpace | FractalCalibrator | NaturalCalibrator | Standardiser | Novelty
_PartT = TypeVar("_PartT", bound=_Part)


def _part(kind: type[_PartT], name: str, tensors: dict[str, Tensor]) -> _PartT:
    return kind(**{key: tensors[f"{name}.{key}"] for key in kind._fields})
