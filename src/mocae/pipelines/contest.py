"""What every compared system can be made from: experts, outcomes, routers, made when first asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from mocae.bank import ExpertBank
from mocae.calibration import AlignXRouter
from mocae.config import ROUTED_SYSTEMS, Recipe, RoutingConfig
from mocae.errors import ConfigError, DataError, unknown_name
from mocae.evaluation import Generation
from mocae.files import read_json
from mocae.models import LoadedBase, base_fingerprint, pick_device, shard
from mocae.pipelines.fitting import Features, Fitter
from mocae.pipelines.judges import Judges
from mocae.pipelines.routing import routing_of
from mocae.pipelines.rows import Rows, long_prompts
from mocae.pipelines.store import Stage, Store
from mocae.pipelines.systems import Answered, Examiner
from mocae.pipelines.training import Trainer, first_expert_layer
from mocae.policies import FixedPolicy, Policy
from mocae.prompts import FORMATS, PromptFormat
from mocae.types import Example

__all__ = ["Contest"]


class Contest:
    """One recipe on one base model. Stages shared by systems are made once, and only if a system needs them.

    Args:
        recipe: what to run.
        base: the base model, nothing attached to it.
        rows: all data.
        judges: of the recipe.
        store: where stages lie.
    """

    def __init__(self, recipe: Recipe, *, base: LoadedBase, rows: Rows, judges: Judges, store: Store) -> None:
        self.recipe = recipe
        self.base = base
        self.rows = rows
        self.judges = judges
        self.store = store
        if any(rows.calibration.values()):
            for system in recipe.systems:  # what has no calibration prompts shows now, not after training
                self.verdict_ids(routing_of(recipe, system)[0])
        self.base_key = {
            "fingerprint": base_fingerprint(base.model),
            "dtype": str(base.model.dtype),
            "description": base.description.digest,
        }
        self.n_base_parameters = sum(p.numel() for p in base.model.parameters())
        if recipe.base.shard:
            shard(base.model, pick_device(recipe.base.device))
        self.trainer = Trainer(recipe, base, store, self.base_key)
        self.answered: dict[str, Answered] = {}
        self._bank: ExpertBank | None = None

    @cached_property
    def prompt_format(self) -> PromptFormat:
        """How prompts become text."""
        return FORMATS.get(self.recipe.prompt_format)

    @cached_property
    def generation(self) -> Generation:
        """How answers are generated."""
        given = self.recipe.generation
        return Generation(
            max_new_tokens=given.max_new_tokens,
            batch_size=given.batch_size,
            do_sample=given.do_sample,
            temperature=given.sampling_temperature,
            top_p=given.top_p,
            seed=self.recipe.seed,
        )

    @cached_property
    def examiner(self) -> Examiner:
        """Asks systems the test prompts."""
        return Examiner(
            base=self.base,
            store=self.store,
            prompts=self.rows.all_of("test"),
            prompt_format=self.prompt_format,
            generation=self.generation,
            judges=self.judges.judges,
            depends={**self.base_key, "judges": self.judges.key},
        )

    @cached_property
    def experts(self) -> Mapping[str, Stage]:
        """The trained experts by axis."""
        with self.bare():
            return {axis: self.expert(axis) for axis in self.recipe.axis_names}

    def expert(self, name: str) -> Stage:
        """Return the expert of one axis: trained, or brought along. Nothing may be attached to the base model."""
        axis = next(axis for axis in self.recipe.axes if axis.name == name)
        if axis.adapter is not None:
            return self.trainer.imported(name, axis.adapter)
        return self.trainer.expert(name, self.rows.train[name])

    @property
    def expert_keys(self) -> list[list[str]]:
        """Axis and key of the experts' stages; a list, because their order is that of the weights."""
        return [[axis, stage.key] for axis, stage in self.experts.items()]

    def n_active(self, policy: Policy) -> int:
        """Return the adapter parameters a policy uses: those of every expert it ever gives weight."""
        records = (read_json(s.folder / "training.json") for s in self.experts.values())
        sizes = [int(record["n_parameters"]) for record in records]
        weights = policy.weights.tolist() if isinstance(policy, FixedPolicy) else [1.0] * len(sizes)
        return sum(size for size, weight in zip(sizes, weights, strict=True) if weight)

    @cached_property
    def layer(self) -> int:
        """Decoder layer whose input the router reads."""
        layer = self.recipe.features.layer
        return first_expert_layer(self.recipe.experts, self.base) if layer is None else layer

    def bank(self) -> ExpertBank:
        """Return the bank of all experts, attached."""
        if self._bank is None:
            folders = {axis: stage.folder for axis, stage in self.experts.items()}
            self._bank = ExpertBank.attach(self.base.model, folders)
        return self._bank

    @contextmanager
    def bare(self) -> Iterator[LoadedBase]:
        """Return a context in which nothing is attached to the base model."""
        self.release()
        yield self.base

    def release(self) -> None:
        """Take the bank off the base model, if it is on."""
        if self._bank is not None:
            self._bank.detach()
            self._bank = None

    def _fitter(self) -> Fitter:
        return Fitter(self.recipe, self.base, self.bank(), self.store, self.layer, self.generation)

    @cached_property
    def probes(self) -> dict[str, Sequence[Example]]:
        """The prompts that describe each expert: its training rows, or for one brought along its calibration rows.

        Raises:
            DataError: an axis has neither, or none that fits the model's context.
        """
        probes: dict[str, Sequence[Example]] = {}
        for axis in self.recipe.axis_names:
            rows = self.rows.train[axis] or self.rows.calibration.get(axis, ())
            long = long_prompts(self.recipe, self.base, rows)
            probes[axis] = [row for row in rows if row.id not in long]
            if not probes[axis]:
                none = "no prompt that fits the model's context" if rows else "neither train nor calibration rows"
                raise DataError(f"axes.{axis}: {none}, so nothing describes its expert")
        return probes

    @cached_property
    def features(self) -> Stage:
        """Task features, latent space and states of the calibration prompts."""
        return self._fitter().features(self.probes, self.rows.all_of("calibration"), self.expert_keys)

    def subspaces(self, features: Stage) -> dict[str, NDArray[Any]]:
        """Return for every axis the orthonormal rows, shape (m, k), of its subspace U_i of the latent space."""
        latent = self._fitter().read_features(features).latent
        return {axis: u.double().numpy() for axis, u in zip(self.bank().names, latent.subspaces, strict=True)}

    def features_read(self) -> Features:
        """Return what the features stage holds."""
        return self._fitter().read_features(self.features)

    @cached_property
    def outcomes(self) -> Stage:
        """Judged answers of every expert to the calibration prompts that some system may use the verdicts of."""
        depends = {"experts": self.expert_keys, "judges": self.judges.key}
        limits = [
            routing_of(self.recipe, system)[0].outcome.max_prompts
            for system in self.recipe.systems
            if system.policy in (*ROUTED_SYSTEMS, "joint_outcomes")
        ]
        most = None if None in limits else max((limit for limit in limits if limit is not None), default=None)
        wanted = self.rows.verdict_ids(most, seed=self.recipe.seed)
        asked = [row for row in self.rows.all_of("calibration") if row.id in wanted]
        return self._fitter().outcomes(asked, self.judges.judges, depends)

    def verdict_ids(self, routing: RoutingConfig) -> frozenset[str]:
        """Return the calibration prompts whose verdicts `max_prompts` and `leave_out` of `routing.outcome` let be used.

        Raises:
            ConfigError: a probe to be left out has no calibration prompts.
        """
        used = self.rows.verdict_ids(routing.outcome.max_prompts, seed=self.recipe.seed)
        probes = {row.id: row.probe for row in self.rows.all_of("calibration")}
        for name in routing.outcome.leave_out:
            if name not in probes.values():
                known = sorted(set(probes.values()))
                raise ConfigError(f"routing.outcome.leave_out: {unknown_name('probe of calibration', name, known)}")
        return frozenset(i for i in used if probes[i] not in routing.outcome.leave_out)

    def router(self, name: str, kind: str, routing: RoutingConfig) -> tuple[Stage, AlignXRouter]:
        """Return a fitted router; "alignx" without a verdict to use is trained on labels.

        Args:
            name: of its folder.
            kind: "alignx" (outcomes) or "linear" (labels, and outcomes for its temperature).
            routing: how it is fitted.
        """
        used = self.verdict_ids(routing)
        judged = routing.outcome.max_prompts != 0 if kind == "alignx" else bool(used)
        stage = self._fitter().router(
            name,
            kind,
            self.features,
            self.outcomes if judged else None,
            self.rows.all_of("calibration"),
            routing=routing,
            used=used,
        )
        return stage, AlignXRouter.load(stage.folder)

    def singles(self) -> Sequence[str]:
        """Return the names of the single experts among the systems, in the order of weights."""
        return [f"expert:{axis}" for axis in self.recipe.axis_names]

    def order(self) -> Sequence[str]:
        """Return the axes in the order of sequential training."""
        return self.recipe.comparison.order or self.recipe.axis_names

    def close(self) -> None:
        """Give the base model back as it was."""
        self.release()

    def __enter__(self) -> Contest:
        """Return itself."""
        return self

    def __exit__(self, *_: Any) -> None:
        """Give the base model back as it was."""
        self.close()
