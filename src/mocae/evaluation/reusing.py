"""Answers of a system that chooses one expert a prompt, taken from that expert's own answers to the same prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from mocae.evaluation.answering import Cost, Generation
from mocae.evaluation.examining import examine
from mocae.judges import Judge
from mocae.policies import Mixture, PromptBatch
from mocae.prompts import PromptFormat
from mocae.types import Example, Sample

__all__ = ["Chosen", "examine_chosen"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Judged answers of a system that chooses among experts.

    Attributes:
        samples: one an example, in order.
        cost: of those that were generated.
        taken: ids of the examples whose answer, with its verdicts, is an expert's.
        same: share of those generated anyway whose text is the expert's, None where there were none.
    """

    samples: Sequence[Sample]
    cost: Cost
    taken: frozenset[str] = frozenset()
    same: float | None = None


def examine_chosen(
    model: Mixture,
    examples: Sequence[Example],
    judges: Sequence[Judge],
    *,
    alone: Mapping[str, Mapping[str, Sample]],
    pooled: Float[Tensor, "N P"],
    system: str,
    prompt_format: PromptFormat,
    generation: Generation,
    label: str,
    work: Path | None = None,
) -> Chosen:
    """Return a judged answer an example, generated only where no expert alone has given it.

    A prompt whose weights are 1 for one expert and 0 for all others has the answer that this expert gave alone, up to
    how sums round in batches of other prompts. One batch of them, spread over the lengths, is answered anyway, for cost
    and comparison; those answers count.

    Args:
        model: chooses and answers, greedily.
        examples: the prompts; they differ.
        judges: see `examine`.
        alone: expert -> prompt id -> its own judged answer.
        pooled: states of the prompts where the policy reads.
        system: see `examine`.
        prompt_format: see `examine`.
        generation: see `examine`.
        label: see `examine`.
        work: see `examine`.
    """
    batch = PromptBatch([example.id for example in examples], pooled)
    alpha, sure = model.policy.route(batch).tolist(), model.policy.sureness(batch)
    confidence, novelty = ([None] * len(examples),) * 2 if sure is None else sure.lists()
    ready: dict[str, Sample] = {}
    for example, row, chance, unlike in zip(examples, alpha, confidence, novelty, strict=True):
        weights = dict(zip(model.experts, row, strict=True))
        sample = _of_one_expert(weights, alone, example.id)
        if sample is not None:
            answer = replace(sample.answer, weights=weights, confidence=chance, novelty=unlike)
            ready[example.id] = replace(sample, system=system, answer=answer)
    ordered = sorted(ready, key=lambda i: (len(ready[i].answer.example.prompt), i))
    timed = set(ordered[:: max(1, len(ordered) // generation.batch_size)][: generation.batch_size])
    made, cost = examine(
        model,
        [example for example in examples if example.id not in ready or example.id in timed],
        judges,
        system=system,
        prompt_format=prompt_format,
        generation=generation,
        label=label,
        work=work,
    )
    own = {sample.answer.example.id: sample for sample in made}
    same = [own[i].answer.text == ready[i].answer.text for i in timed if i in own]
    taken = {i: sample for i, sample in ready.items() if i not in timed}
    rows = [sample for example in examples if (sample := (own | taken).get(example.id)) is not None]
    return Chosen(rows, cost, frozenset(taken), sum(same) / len(same) if same else None)


def _of_one_expert(
    weights: Mapping[str, float], alone: Mapping[str, Mapping[str, Sample]], identity: str
) -> Sample | None:
    """Return the answer to a prompt of the one expert that weights choose, None where they choose no one."""
    used = [name for name, weight in weights.items() if weight]
    return alone.get(used[0], {}).get(identity) if len(used) == 1 and weights[used[0]] == 1 else None
