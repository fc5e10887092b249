"""Stage 2 of a run: what describes prompts and experts, what experts got right, and the routers fitted on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mocae.bank import ExpertBank
from mocae.calibration import (
    ROUTER_VERSION,
    AlignXRouter,
    Beliefs,
    CalibrationSet,
    LatentSpace,
    RouterSettings,
    fit_latent_space,
    fit_router,
    fit_temperature,
)
from mocae.config import Recipe, RoutingConfig
from mocae.data import select
from mocae.errors import DataError
from mocae.evaluation import Generation, examine, read_samples, write_samples
from mocae.experts import pooled_states
from mocae.files import read_tensors
from mocae.metrics import brier_score, expected_calibration_error
from mocae.models import LoadedBase, decoder_layers
from mocae.policies import FixedPolicy, Mixture, weights_vector
from mocae.prompts import FORMATS
from mocae.stages.judging import Judges
from mocae.stages.store import Stage, Store
from mocae.types import Example, Sample

__all__ = ["Features", "Fitter", "acceptable_by_prompt", "asked_of", "router_settings"]


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What the router is built on.

    Attributes:
        latent: the latent space.
        clouds: axis -> latent points of its training prompts.
        calibration: (N, P), pooled hidden states of the calibration prompts.
    """

    latent: LatentSpace
    clouds: Mapping[str, Tensor]
    calibration: Tensor


@dataclass(frozen=True, slots=True)
class Fitter:
    """Fits routers of one recipe, each step a stage of the store. The bank is attached to the base model."""

    recipe: Recipe
    base: LoadedBase
    bank: ExpertBank
    store: Store
    layer: int
    generation: Generation

    def features(
        self, train: Mapping[str, Sequence[Example]], calibration: Sequence[Example], experts: Sequence[Stage]
    ) -> Stage:
        """Return the stage of task-feature matrices, latent space, clouds and calibration states."""
        config = self.recipe.features
        some = {axis: select(rows, limit=config.probes_per_axis, seed=self.recipe.seed) for axis, rows in train.items()}
        texts = {axis: [self._text(row.prompt) for row in rows] for axis, rows in some.items()}
        injected = {
            axis.name: [self._text(row.prompt, axis.injection) for row in some[axis.name]] for axis in self.recipe.axes
        }
        asked = [self._text(row.prompt) for row in calibration]
        inputs = {
            "config": config.model_dump(),
            "layer": self.layer,
            "texts": texts,
            "injected": injected,
            "asked": asked,
        }
        return self.store.stage(
            "features", inputs, lambda folder: self._make_features(folder, texts, injected, asked), needs=experts
        )

    def _text(self, prompt: str, injection: str | None = None) -> str:
        shape = FORMATS.get(self.recipe.prompt_format)
        return shape.format_prompt(prompt, injection=injection, tokenizer=self.base.tokenizer)

    def _states(self, texts: Sequence[str], layer: int, label: str) -> Tensor:
        return pooled_states(
            self.base.model, self.base.tokenizer, texts, layer=layer, pool=self.recipe.features.pool, label=label
        )

    def _make_features(
        self,
        folder: Path,
        texts: Mapping[str, Sequence[str]],
        injected: Mapping[str, Sequence[str]],
        asked: Sequence[str],
    ) -> None:
        depth = len(decoder_layers(self.base.model))
        states: dict[str, Tensor] = {}
        moved: dict[str, Tensor] = {}
        with self.bank.off():
            for axis, prompts in texts.items():
                states[axis] = self._states(prompts, self.layer, f"prompts {axis}")
            top = {axis: self._states(prompts, depth, f"base features {axis}") for axis, prompts in texts.items()}
            calibration = self._states(asked, self.layer, "prompts calibration") if asked else torch.zeros(0, 0)
        for axis, prompts in injected.items():
            with self.bank.weights(weights_vector({axis: 1.0}, self.bank.names)):
                moved[axis] = self._states(prompts, depth, f"task features {axis}") - top[axis]
        names = list(self.bank.names)
        latent = fit_latent_space(
            torch.cat([states[axis] for axis in names]), [moved[axis] for axis in names], k=self.recipe.features.k
        )
        tensors = {f"latent.{name}": value for name, value in latent._asdict().items()}
        tensors |= {f"task_features.{axis}": moved[axis] for axis in names}
        tensors |= {f"clouds.{axis}": latent.encode(states[axis]) for axis in names}
        tensors["calibration"] = calibration
        save_file({k: v.contiguous() for k, v in tensors.items()}, str(folder / "features.safetensors"))

    def read_features(self, stage: Stage) -> Features:
        """Return what a features stage holds."""
        tensors = read_tensors(stage.folder / "features.safetensors")
        latent = LatentSpace(*(tensors[f"latent.{name}"] for name in LatentSpace._fields))
        clouds = {name: tensors[f"clouds.{name}"] for name in self.bank.names}
        return Features(latent, clouds, tensors["calibration"])

    def outcomes(self, calibration: Sequence[Example], judges: Judges, experts: Sequence[Stage]) -> Stage:
        """Return the stage with every expert's judged answer to every calibration prompt (`outcomes.jsonl`).

        Raises:
            DataError: no calibration prompts.
        """
        if not calibration:
            raise DataError(
                "outcomes are judged answers to calibration prompts, and there are no calibration prompts; give "
                "axes.*.calibration in the recipe, or compare systems that need none"
            )
        inputs = asked_of(calibration, judges, self.generation)
        work = self.store.work("outcomes", inputs, needs=experts)

        def make(folder: Path) -> None:
            write_samples(self.ask(calibration, judges, work), folder / "outcomes.jsonl")

        return self.store.stage("outcomes", inputs, make, needs=experts)

    def ask(self, prompts: Sequence[Example], judges: Judges, work: Path) -> list[Sample]:
        """Return every expert's judged answer to every prompt; `work` is the folder a killed call goes on from."""
        samples: list[Sample] = []
        for axis in self.bank.names:
            policy = FixedPolicy(weights_vector({axis: 1.0}, self.bank.names))
            samples += examine(
                Mixture(self.base, self.bank, policy),
                prompts,
                judges.judges,
                system=f"expert:{axis}",
                prompt_format=FORMATS.get(self.recipe.prompt_format),
                generation=self.generation,
                label=f"outcomes {axis}",
                work=work / axis,
            )[0]
        return samples

    def router(
        self,
        name: str,
        kind: str,
        features: Stage,
        outcomes: Stage | None,
        calibration: Sequence[Example],
        *,
        routing: RoutingConfig,
        used: frozenset[str],
    ) -> Stage:
        """Return a fitted router: "alignx" on outcomes where there are any, else on the axes of the training prompts.

        What learns from labels gets its temperature from the verdicts: nothing else says how often a choice is right.

        Args:
            name: of its folder.
            kind: "alignx" or "linear".
            features: what prompts and experts look like.
            outcomes: verdicts, None where there are none.
            calibration: prompts in the order of the features.
            routing: how it is fitted.
            used: ids of the calibration prompts whose verdicts may be used.
        """
        # Only what this fit uses: labels alone need no calibrators, and pruning comes after the weights.
        if outcomes is not None and kind == "alignx":
            settings = router_settings(routing)
        else:
            settings = _label_settings(routing, calibrated=kind == "alignx")
        inputs: dict[str, Any] = {
            "used": None if outcomes is None else sorted(used),
            "settings": asdict(settings),
            "kind": kind,
            "version": ROUTER_VERSION,
        }

        def make(folder: Path) -> None:
            known = self.read_features(features)
            data = None
            if outcomes is not None:
                samples = [s for s in read_samples(outcomes.folder / "outcomes.jsonl") if s.answer.example.id in used]
                data = self.calibration_set(known, samples, calibration)
            if data is not None and kind == "alignx":
                router, record = self.fit(data, known, settings)
            else:
                router, record = self.fit(self._label_set(known), _identity(known), settings)
                # Fitted on latent points; it reads hidden states like every router.
                router = replace(router, latent=known.latent)
                if data is not None and len(data.pooled):
                    router = replace(router, temperature=fit_temperature(router.logits(data.pooled), data.acceptable))
                    record["temperature"] = router.temperature
            router.save(folder)
            (folder / "fit.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

        needs = (features,) if outcomes is None else (features, outcomes)
        return self.store.stage(f"router/{name}", inputs, make, needs=needs)

    def fit(
        self, data: CalibrationSet, known: Features, settings: RouterSettings
    ) -> tuple[AlignXRouter, dict[str, Any]]:
        """Return a router of the experts of the bank, and what its fitting found."""
        fitted = fit_router(
            data,
            axes=self.bank.names,
            latent=known.latent,
            clouds=[known.clouds[name] for name in self.bank.names],
            settings=settings,
            layer=self.layer,
            pool=self.recipe.features.pool,
        )
        record: dict[str, Any] = {
            "n_prompts": len(data.pooled),
            "l2": fitted.l2,
            "calibration": fitted.router.calibration,
            "temperature": fitted.router.temperature,
            "lambdas": fitted.router.lambdas,
            "held_out_loss": {str(l2): loss for l2, loss in fitted.held_out_loss.items()},
        }
        if fitted.router.novelty is not None:
            record["novelty_discount"] = float(fitted.router.novelty.discount)
        if fitted.held_out_beliefs is not None:
            record["held_out"] = _held_out(fitted.held_out_beliefs, data.acceptable)
        return fitted.router, record

    def calibration_set(
        self, known: Features, samples: Sequence[Sample], calibration: Sequence[Example]
    ) -> CalibrationSet:
        """Return the calibration prompts whose answers were all judged, in the order of the features."""
        by_prompt = acceptable_by_prompt(samples, [f"expert:{name}" for name in self.bank.names])
        kept = [i for i, row in enumerate(calibration) if row.id in by_prompt]
        names = list(self.bank.names)
        return CalibrationSet(
            pooled=known.calibration[kept],
            acceptable=torch.tensor([by_prompt[calibration[i].id] for i in kept], dtype=torch.bool).reshape(
                -1, len(names)
            ),
            labels=torch.tensor([names.index(calibration[i].axis) for i in kept], dtype=torch.long),
            groups=[calibration[i].group for i in kept],
            kinds=[f"{calibration[i].axis}: {calibration[i].probe}" for i in kept],
        )

    def _label_set(self, known: Features) -> CalibrationSet:
        """Return the training prompts, each labelled with the axis whose data it is from."""
        sizes = [len(known.clouds[name]) for name in self.bank.names]
        labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        return CalibrationSet(
            pooled=torch.cat([known.clouds[name] for name in self.bank.names]),
            acceptable=torch.nn.functional.one_hot(labels, len(sizes)).bool(),
            labels=labels,
            groups=[""] * len(labels),
        )


def _identity(known: Features) -> Features:
    """Return features whose latent space maps latent points to themselves."""
    k = known.latent.k
    latent = known.latent._replace(mean=torch.zeros(k), basis=torch.eye(k), scale=torch.ones(k))
    return replace(known, latent=latent)


def asked_of(prompts: Sequence[Example], judges: Judges, generation: Generation) -> dict[str, Any]:
    """Return what verdicts on the experts' answers to some prompts depend on, beside the experts."""
    # Axis and group too: the router learns from the one and is checked on folds of the other.
    rows = [[row.prompt, row.axis, row.probe, row.kind, row.group, dict(row.facts)] for row in prompts]
    return {"judges": judges.key, "prompts": rows, "generation": asdict(generation)}


def router_settings(routing: RoutingConfig) -> RouterSettings:
    """Return how a router is fitted on outcomes, as a recipe says it."""
    return RouterSettings(
        outcome_weight=routing.outcome.weight,
        gating_weight=routing.outcome.gating_weight,
        l2=_fixed(routing.outcome.l2),
        temperature=_fixed(routing.temperature),
        calibration=routing.calibration,
        lambdas=(routing.calibrators.fractal_weight, routing.calibrators.natural_weight),
        epsilon=routing.calibrators.epsilon,
        shrinkage=routing.calibrators.shrinkage,
        novelty=routing.novelty,
    )


def _fixed(value: float | str) -> float | None:
    return None if isinstance(value, str) else float(value)


def _label_settings(routing: RoutingConfig, *, calibrated: bool) -> RouterSettings:
    """Return the settings of a router trained on labels, at temperature 1; without calibrators if uncalibrated."""
    settings = replace(
        router_settings(routing), outcome_weight=0.0, gating_weight=1.0, temperature=1.0, calibration="temperature"
    )
    return settings if calibrated else replace(settings, lambdas=(0.0, 0.0))


def _held_out(beliefs: Beliefs, acceptable: Tensor) -> dict[str, float]:
    """Return how good choices and confidence are on prompts of other folds: for choosing settings without the test."""
    right = acceptable.gather(1, beliefs.alpha.argmax(1, keepdim=True))[:, 0].tolist()
    confidence = beliefs.confidence.clamp(0, 1).tolist()
    return {
        "accuracy": sum(right) / len(right),
        "oracle": float(acceptable.any(1).double().mean()),
        "ece": expected_calibration_error(confidence, right),
        "brier": brier_score(confidence, right),
    }


def acceptable_by_prompt(samples: Sequence[Sample], systems: Sequence[str]) -> dict[str, list[bool]]:
    """Return prompt id -> whether each system's answer was acceptable, for prompts where all of them were judged."""
    found: dict[str, dict[str, bool]] = {}
    for sample in samples:
        if sample.acceptable is not None:
            found.setdefault(sample.answer.example.id, {})[sample.system] = sample.acceptable
    return {i: [row[s] for s in systems] for i, row in found.items() if all(s in row for s in systems)}
