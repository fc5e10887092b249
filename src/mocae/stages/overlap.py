"""Axis collapse, measured in a run: how far apart the axes lie."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mocae.bank import ExpertBank, load_peft
from mocae.data import select
from mocae.errors import ConfigError, DataError
from mocae.experts import pooled_states
from mocae.files import read_json
from mocae.merging import TaskVector
from mocae.metrics import (
    chance_cka,
    chance_principal_angles,
    linear_cka,
    principal_angles,
)
from mocae.models import decoder_layers
from mocae.policies import weights_vector
from mocae.stages.run import Run

__all__ = ["overlap", "task_features_on_shared_prompts"]

_PROMPTS_PER_AXIS = 64
_VERSION = 1


def overlap(run: Run) -> dict[str, Any] | None:
    """Return how far the experts' task features, subspaces and task vectors overlap, None with one axis.

    A stage of the run. Task features are compared on prompts of all axes together, because linear CKA compares what two
    experts do to the *same* prompts: t_i(x) = pool(h_expert_i(injection_i + x)) - pool(h_base(x)) at the last layer.
    The principal angles are those between the axis subspaces U_i of the router's latent space.

    For each pair of axes: `cka` and `cka_chance` (rows shuffled), `angles` and `angles_chance` (random subspaces) in
    degrees, `cosine` of the task vectors and `cosine_by_layer`. What cannot be measured is None and told in `absent`.
    """
    if len(run.recipe.axes) < 2:
        return None
    try:
        features = run.features
    except DataError as error:  # a report must not be lost because hidden states say nothing
        return {"absent": str(error)}
    some = {axis: select(rows, limit=_PROMPTS_PER_AXIS, seed=run.recipe.seed) for axis, rows in run.probes.items()}
    prompts = [row.prompt for rows in some.values() for row in rows]
    inputs = {
        "version": _VERSION,
        "prompts": prompts,
        "injections": [axis.injection for axis in run.recipe.axes],
    }

    def make(folder: Path) -> None:
        moved = task_features_on_shared_prompts(run, prompts)
        latent = run.features_read().latent
        subspaces = {a: u.double().numpy() for a, u in zip(run.recipe.axis_names, latent.subspaces, strict=True)}
        found = {
            "n_prompts": len(prompts),
            "layer": run.layer,
            "pairs": [_pair(a, b, moved, subspaces, run) for a, b in itertools.combinations(run.recipe.axis_names, 2)],
        }
        (folder / "overlap.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    stage = run.store.stage("collapse", inputs, make, needs=(features,))
    found: dict[str, Any] = read_json(stage.folder / "overlap.json")
    return found


def task_features_on_shared_prompts(run: Run, prompts: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return for every axis what its expert, with its injected prompt, changes at the last layer: shape (N, P)."""
    base, bank, shape = run.base, run.bank(), run.prompt_format
    depth = len(decoder_layers(base.model))

    def states(injection: str | None, label: str) -> torch.Tensor:
        texts = [shape.format_prompt(p, injection=injection, tokenizer=base.tokenizer) for p in prompts]
        pool = run.recipe.features.pool
        return pooled_states(base.model, base.tokenizer, texts, layer=depth, pool=pool, label=label)

    with bank.off():
        before = states(None, "overlap base")
    return {axis.name: _moved(bank, axis.name, before, states, axis.injection) for axis in run.recipe.axes}


def _moved(bank: ExpertBank, axis: str, before: torch.Tensor, states: Any, injection: str) -> NDArray[Any]:
    with bank.weights(weights_vector({axis: 1.0}, bank.names)):
        change: torch.Tensor = states(injection, f"overlap {axis}") - before
    return change.double().numpy()


def _pair(
    first: str,
    second: str,
    moved: Mapping[str, NDArray[Any]],
    subspaces: Mapping[str, NDArray[Any]],
    run: Run,
) -> dict[str, Any]:
    one, two = (TaskVector.from_lora(load_peft(run.experts[a].folder, name=a)) for a in (first, second))
    found: dict[str, Any] = {"first": first, "second": second}
    absent: list[str] = []

    def measure(name: str, number: Any) -> None:
        try:
            found[name] = number()
        except (DataError, ConfigError) as error:  # an expert that changes nothing has no direction
            found[name] = None
            absent.append(f"{name}: {error}")

    u, v = subspaces[first], subspaces[second]
    measure("cka", lambda: linear_cka(moved[first], moved[second]))
    measure("cka_chance", lambda: chance_cka(moved[first], moved[second]))
    measure("angles", lambda: np.degrees(principal_angles(u, v)).tolist())
    measure("angles_chance", lambda: np.degrees(chance_principal_angles(u.shape[1], len(u), len(v))).tolist())
    measure("cosine", lambda: one.cosine(two))
    measure("cosine_by_layer", lambda: {str(layer): cosine for layer, cosine in one.cosine_by_layer(two).items()})
    return {**found, "absent": absent}
