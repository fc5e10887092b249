"""Output calibrators of a routed system, trained on what the verdicts accepted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch

from mocae.calibration import AcceptedAnswer, AlignXRouter, OutputCalibrators, fit_output_calibrators
from mocae.config import RoutingConfig
from mocae.evaluation import read_samples
from mocae.models import decoder_layers
from mocae.pipelines.contest import Contest
from mocae.pipelines.store import Stage
from mocae.types import Example, Sample

__all__ = ["accepted", "output_calibrators"]


def accepted(samples: Iterable[Sample], used: frozenset[str]) -> list[Example]:
    """Return one training row for each different accepted answer to a calibration prompt among `used`."""
    rows: dict[tuple[str, str], Example] = {}
    for sample in samples:
        example, text = sample.answer.example, sample.answer.text
        if sample.acceptable and text.strip() and example.id in used:
            row = Example(example.prompt, example.axis, example.probe, text, example.kind, example.group)
            rows.setdefault((example.id, text), row)
    return list(rows.values())


def output_calibrators(
    contest: Contest, name: str, router_stage: Stage, router: AlignXRouter, routing: RoutingConfig
) -> tuple[Stage, OutputCalibrators]:
    """Return calibrators trained on the accepted answers to the calibration prompts, each under its routed weights.

    Args:
        contest: what systems are made from.
        name: of the folder.
        router_stage: the router's stage.
        router: whose weights are in force.
        routing: settings; `output.rank` is set.

    Raises:
        DataError: no accepted answer.
        TrainingError: the loss is not finite.
    """
    recipe, config, used = contest.recipe, routing.output, contest.verdict_ids(routing)
    calibration = contest.rows.all_of("calibration")
    length, batch_size = recipe.experts.max_length, recipe.experts.optimizer.batch_size
    inputs = {
        "router": router_stage.key,
        "outcomes": contest.outcomes.key if used else None,
        "used": sorted(used),
        "config": config.model_dump(),
        "max_length": length,
        "batch_size": batch_size,
        "seed": recipe.seed,
    }

    def make(folder: Path) -> None:
        samples = read_samples(contest.outcomes.folder / "outcomes.jsonl") if used else ()
        weights = router.probs(contest.features_read().calibration)
        alpha = {row.id: weights[i] for i, row in enumerate(calibration)}
        base, shape = contest.base, contest.prompt_format
        answers = [
            AcceptedAnswer(
                shape.format_prompt(row.prompt, injection=None, tokenizer=base.tokenizer),
                shape.format_response(row.response or ""),
                alpha[row.id],
            )
            for row in accepted(samples, used)
        ]
        assert config.rank is not None
        made = OutputCalibrators(
            from_layer=contest.layer,
            n_layers=len(decoder_layers(base.model)),
            hidden_size=int(base.model.get_input_embeddings().weight.shape[1]),  # type: ignore[index]
            rank=config.rank,
            seed=recipe.seed,
        )
        record = fit_output_calibrators(
            base,
            contest.bank(),
            made,
            answers,
            learning_rate=config.learning_rate,
            epochs=config.epochs,
            batch_size=batch_size,
            max_length=length,
            seed=recipe.seed,
        )
        made.save(folder)
        details = {"n_answers": len(answers), "n_parameters": made.n_parameters, **asdict(record)}
        (folder / "training.json").write_text(json.dumps(details, indent=1) + "\n", encoding="utf-8")

    stage = contest.store.stage(f"output/{name}", inputs, make)
    return stage, OutputCalibrators.load(stage.folder).to(torch.device(contest.base.model.device))
