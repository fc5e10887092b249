"""Which calibration prompts get a verdict, where verdicts are dear: those that say most about which expert to take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mocae.calibration import AlignXRouter
from mocae.config import RoutingConfig
from mocae.errors import DataError
from mocae.evaluation import read_samples, write_samples
from mocae.progress import say
from mocae.stages.fitting import asked_of, router_settings
from mocae.stages.store import Stage
from mocae.types import Example, Sample

if TYPE_CHECKING:
    from mocae.stages.run import Run

__all__ = ["CHOSEN", "outcomes_by_margin"]

CHOSEN = "chosen"
"""Folder of the outcomes of chosen prompts."""

_ROUNDS = 4
"""In which two thirds of the prompts are chosen; one third is spread."""


def outcomes_by_margin(run: Run, routing: RoutingConfig, candidates: Sequence[Example], limit: int) -> Stage:
    """Return the stage of verdicts on `limit` prompts, as `Fitter.outcomes` writes them, chosen in rounds.

    A third of them are spread over the kinds of prompt. In each of four rounds a router is fitted on the verdicts so
    far, and those prompts follow whose two likeliest experts it tells apart least. Where every candidate is judged
    anyway, for another system of the run, verdicts are taken from there and nobody is asked again.

    Args:
        run: what systems are made from.
        routing: how the routers of the rounds are fitted.
        candidates: the prompts to choose from, those to begin with first.
        limit: how many.

    Reference: uncertainty sampling by margin (Scheffer et al., 2001).
    """
    judged = run.all_are_judged()
    experts = list(run.experts.values())
    needs = (run.features, *((run.outcomes,) if judged else experts))
    settings = routing.model_dump(mode="json", exclude={"top_k", "threshold", "output"})
    inputs = {**asked_of(candidates, run.judges, run.generation), "limit": limit, "routing": settings}
    name = f"{CHOSEN}/margin-{limit}"
    work = run.store.work(name, inputs, needs=needs)

    def make(folder: Path) -> None:
        known = read_samples(run.outcomes.folder / "outcomes.jsonl") if judged else ()
        by_id: dict[str, list[Sample]] = {}
        for sample in known:
            by_id.setdefault(sample.answer.example.id, []).append(sample)
        samples: list[Sample] = []
        first = max(1, limit // 3)
        step = max(1, -(-(limit - first) // _ROUNDS))
        chosen: list[str] = []
        rows = {row.id: row for row in candidates}
        left = list(rows)
        while left and len(chosen) < limit:
            count = first if not chosen else min(step, limit - len(chosen))
            ids = left[:count] if not chosen else _least_sure(run, routing, samples, left)[:count]
            if judged:
                samples += [sample for i in ids for sample in by_id.get(i, [])]
            else:
                samples += run.fitter.ask([rows[i] for i in ids], run.judges, work / str(len(chosen)))
            chosen += ids
            left = [i for i in left if i not in set(chosen)]
        write_samples(samples, folder / "outcomes.jsonl")
        (folder / "chosen.json").write_text(json.dumps(chosen) + "\n", encoding="utf-8")

    return run.store.stage(name, inputs, make, needs=needs)


def _least_sure(run: Run, routing: RoutingConfig, samples: Sequence[Sample], left: Sequence[str]) -> list[str]:
    """Return prompts, those whose two likeliest experts are closest first; in their order where nothing tells."""
    fitter, calibration = run.fitter, run.rows.all_of("calibration")
    features = run.features_read()
    data = fitter.calibration_set(features, samples, calibration)
    groups = {group or str(i) for i, group in enumerate(data.groups)}
    if len(groups) < 2 or not data.acceptable.any() or features.calibration.shape[1] < 2:
        say("the verdicts so far tell no expert from another; more prompts are spread over the kinds")
        return list(left)
    try:
        router: AlignXRouter = fitter.fit(data, features, router_settings(routing))[0]
    except DataError as error:
        say(f"{error}; more prompts are spread over the kinds")
        return list(left)
    place = {row.id: i for i, row in enumerate(calibration)}
    chances = router.beliefs(features.calibration[[place[i] for i in left]]).chances
    best = chances.topk(min(2, chances.shape[1]), dim=1).values
    margins: list[float] = (best[:, 0] - best[:, -1]).tolist()
    return [left[i] for i in torch.tensor(margins).argsort(stable=True).tolist()]
