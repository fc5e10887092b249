"""Output calibrators of a routed system, trained on what the verdicts accepted."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from mocae.calibration import AcceptedAnswer, AlignXRouter, OutputCalibrators, fit_output_calibrators
from mocae.config import RoutingConfig
from mocae.models import decoder_layers
from mocae.stages.learned import accepted
from mocae.stages.run import Run
from mocae.stages.store import Stage

__all__ = ["output_calibrators"]


def output_calibrators(run: Run, name: str, router: Stage, routing: RoutingConfig) -> Stage:
    """Return calibrators trained on the accepted answers to the calibration prompts, each under its routed weights.

    Args:
        run: what systems are made from.
        name: of the folder.
        router: the stage of the router whose weights are in force.
        routing: settings; `output.rank` is set.

    Raises:
        DataError: no accepted answer.
        TrainingError: the loss is not finite.
    """
    recipe, config = run.recipe, routing.output
    learned = accepted(run.verdicts(routing))
    training = {
        "max_length": recipe.experts.max_length,
        "batch_size": recipe.experts.optimizer.batch_size,
        "seed": recipe.seed,
    }

    def make(folder: Path) -> None:
        weights = AlignXRouter.load(router.folder).probs(run.features_read().calibration)
        alpha = {row.id: weights[i] for i, row in enumerate(run.rows.all_of("calibration"))}
        base, shape = run.base, run.prompt_format
        answers = [
            AcceptedAnswer(
                shape.format_prompt(row.prompt, injection=None, tokenizer=base.tokenizer),
                shape.format_response(row.response or ""),
                alpha[row.id],
            )
            for row in learned
        ]
        assert config.rank is not None
        calibrators = OutputCalibrators(
            from_layer=run.layer,
            n_layers=len(decoder_layers(base.model)),
            hidden_size=int(base.model.get_input_embeddings().weight.shape[1]),  # type: ignore[index]
            rank=config.rank,
            seed=recipe.seed,
        )
        record = fit_output_calibrators(
            base,
            run.bank(),
            calibrators,
            answers,
            learning_rate=config.learning_rate,
            epochs=config.epochs,
            **training,
        )
        calibrators.save(folder)
        details = {"n_answers": len(answers), "n_parameters": calibrators.n_parameters, **asdict(record)}
        (folder / "training.json").write_text(json.dumps(details, indent=1) + "\n", encoding="utf-8")

    inputs = {**training, "used": sorted(run.verdict_ids(routing)), "config": config.model_dump()}
    return run.store.stage(f"output/{name}", inputs, make, needs=(router, run.outcomes_for(routing)))
