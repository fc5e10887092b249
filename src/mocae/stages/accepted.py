"""Expert K + 1: an adapter tuned on what the verdicts accepted, which joins the bank and is routed to as well."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from mocae.bank import ExpertBank
from mocae.config import Objective, RoutingConfig
from mocae.evaluation import examine, write_samples
from mocae.experts import pooled_states
from mocae.models import decoder_layers
from mocae.policies import FixedPolicy, Mixture
from mocae.stages.fitting import Features
from mocae.stages.run import Run
from mocae.stages.store import Stage
from mocae.types import Example, Sample

__all__ = ["ACCEPTED", "AcceptedExpert"]

ACCEPTED = "accepted"
"""Name of expert K + 1."""


class AcceptedExpert:
    """Expert K + 1 of one system, each step a stage of the run.

    Its verdicts are cross-fitted: the answers to a prompt that it is judged by come from an adapter that was tuned on
    the answers to other prompts, or the router would believe in it for what it has by heart.

    Args:
        run: what systems are made from.
        name: folder of the system.
        routing: which verdicts are learned from, and how the router is fitted.
        objective: how the adapter learns from them.
        n_folds: parts the prompts are cut into for cross-fitting.
    """

    def __init__(self, run: Run, name: str, routing: RoutingConfig, *, objective: Objective, n_folds: int) -> None:
        self._run, self._root, self._routing = run, f"{ACCEPTED}/{name}", routing
        self._objective: Objective = objective
        self._n_folds = n_folds
        self._verdicts = run.outcomes_for(routing)
        self._samples = run.verdicts(routing)

    def stages(self) -> dict[str, Stage]:
        """Return the K experts and the one more, as "expert:<name>", and the router over all of them, "router".

        Raises:
            ConfigError: the verdicts leave nothing to learn, for all prompts or for those outside one fold.
        """
        run = self._run
        adapter = self._train("adapter", self._samples)
        outcomes = self._outcomes(self._folds())
        features = self._features(adapter)
        experts = {f"expert:{axis}": stage for axis, stage in run.experts.items()} | {f"expert:{ACCEPTED}": adapter}
        with run.bare() as base:
            bank = ExpertBank.attach(base.model, {key.partition(":")[2]: stage.path for key, stage in experts.items()})
            try:
                router = run.fitter_of(bank).router(
                    self._root.partition("/")[2],
                    "alignx",
                    features,
                    outcomes,
                    run.rows.all_of("calibration"),
                    routing=self._routing,
                    used=run.verdict_ids(self._routing),
                )
            finally:
                bank.detach()
        return {**experts, "router": router}

    def _train(self, part: str, samples: Sequence[Sample]) -> Stage:
        run = self._run
        with run.bare():
            return run.trainer.outcomes(
                samples,
                f"{self._root}/{part}",
                r=run.recipe.experts.r,
                objective=self._objective,
                needs=[self._verdicts],
            )

    def _folds(self) -> list[tuple[Stage, frozenset[str]]]:
        """Return, fold by fold, the adapter tuned on the other prompts, and the prompts it is judged by."""
        fold = {s.answer.example.id: _fold(s.answer.example, self._n_folds) for s in self._samples}
        parts = []
        for number in sorted(set(fold.values())):
            outside = [s for s in self._samples if fold[s.answer.example.id] != number]
            inside = frozenset(i for i, own in fold.items() if own == number)
            parts.append((self._train(f"without-{number}", outside), inside))
        return parts

    def _outcomes(self, folds: Sequence[tuple[Stage, frozenset[str]]]) -> Stage:
        """Return the stage of verdicts on the answers of all K + 1 experts."""
        run = self._run
        rows = {row.id: row for row in run.rows.all_of("calibration")}
        inputs = {
            "prompts": [sorted(inside) for _, inside in folds],
            "judges": run.judges.key,
            "generation": asdict(run.generation),
        }
        name, needs = f"{self._root}/outcomes", [self._verdicts, *(adapter for adapter, _ in folds)]
        work = run.store.work(name, inputs, needs=needs)

        def make(folder: Path) -> None:
            samples = list(self._samples)
            for number, (adapter, inside) in enumerate(folds):
                samples += self._ask(adapter, [rows[i] for i in sorted(inside)], work / str(number))
            write_samples(samples, folder / "outcomes.jsonl")

        return run.store.stage(name, inputs, make, needs=needs)

    def _ask(self, adapter: Stage, prompts: Sequence[Example], work: Path) -> Sequence[Sample]:
        run = self._run
        with run.bare() as base:
            bank = ExpertBank.attach(base.model, {ACCEPTED: adapter.folder})
            try:
                return examine(
                    Mixture(base, bank, FixedPolicy(torch.ones(1))),
                    prompts,
                    run.judges.judges,
                    system=f"expert:{ACCEPTED}",
                    prompt_format=run.prompt_format,
                    generation=run.generation,
                    label=f"outcomes {ACCEPTED}",
                    work=work,
                )[0]
            finally:
                bank.detach()

    def _features(self, adapter: Stage) -> Stage:
        """Return the features of the run with one more cloud, of accepted prompts, and one more subspace."""
        run = self._run
        taught = {s.answer.example.id for s in self._samples if s.acceptable}
        calibration = run.rows.all_of("calibration")
        places = [i for i, row in enumerate(calibration) if row.id in taught]
        texts = [
            run.prompt_format.format_prompt(calibration[i].prompt, injection=None, tokenizer=run.base.tokenizer)
            for i in places
        ]

        def make(folder: Path) -> None:
            known = run.features_read()
            states = self._task_features(adapter, texts)
            tensors = _with_one_more(known, states, known.calibration[places])
            save_file(tensors, str(folder / "features.safetensors"))

        return run.store.stage(f"{self._root}/features", {"texts": texts}, make, needs=[run.features, adapter])

    def _task_features(self, adapter: Stage, texts: Sequence[str]) -> torch.Tensor:
        """Return (N, P), what the adapter changes in the pooled states behind the last layer."""
        with self._run.bare() as base:
            depth, pool = len(decoder_layers(base.model)), self._run.recipe.features.pool
            before = pooled_states(base.model, base.tokenizer, texts, layer=depth, pool=pool, label="base features")
            bank = ExpertBank.attach(base.model, {ACCEPTED: adapter.folder})
            try:
                with bank.weights(torch.ones(1)):
                    after = pooled_states(
                        base.model, base.tokenizer, texts, layer=depth, pool=pool, label=f"task features {ACCEPTED}"
                    )
            finally:
                bank.detach()
        return after - before


def _fold(example: Example, n_folds: int) -> int:
    """Return the fold of a prompt; prompts of one group share it."""
    digest = hashlib.sha256((example.group or example.id).encode()).digest()
    return int.from_bytes(digest[:4], "big") % n_folds


def _with_one_more(known: Features, moved: torch.Tensor, states: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the tensors of a features stage with one more expert.

    Args:
        known: features of K experts.
        moved: (N, P), task features of the expert.
        states: (N, P), states of the prompts it was tuned on.
    """
    latent, size = known.latent, known.latent.subspaces.shape[1]
    directions = torch.linalg.svd((moved / latent.scale) @ latent.basis.T, full_matrices=False)[2][:size]
    size = len(directions)
    latent = latent._replace(subspaces=torch.cat([latent.subspaces[:, :size], directions[None]]))
    tensors = {f"latent.{name}": value for name, value in latent._asdict().items()}
    tensors |= {f"clouds.{axis}": cloud for axis, cloud in known.clouds.items()}
    tensors |= {f"clouds.{ACCEPTED}": latent.encode(states), "calibration": known.calibration}
    return {name: value.contiguous() for name, value in tensors.items()}
