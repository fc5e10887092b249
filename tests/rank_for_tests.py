"""Measure what cutting a mixture to a smaller rank costs: the table of docs/exports.md.

python tests/rank_for_tests.py out/seeds/seed-0 out/seeds/seed-1 out/seeds/seed-2     # runs of recipes/pocket.yaml

One LoRA of each mixture is cut by SVD as `mocae export --to peft --rank` does. The error is that of the change
(Frobenius); logits are those of the last token of 72 test prompts of the pocket world.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import mean

import torch

from mocae.bank import ExpertBank, LoraWeights, combine, truncate
from mocae.export import Bundle
from mocae.pipelines.export import bundle_of
from mocae.pocket.world import AXES, probe_rows
from mocae.prompts import FORMATS

RANKS = (1, 2, 4, 8, 12, 16, 20, 24)
MIXTURES = {"uniform": (1 / 3, 1 / 3, 1 / 3), "0.7, -0.2, 0.4": (0.7, -0.2, 0.4)}


def last_logits(bundle: Bundle, experts: Mapping[str, LoraWeights], alpha: torch.Tensor) -> torch.Tensor:
    """Return the logits after the last token of each prompt, shape (prompts, vocabulary)."""
    shape, tokenizer = FORMATS.get(bundle.prompt_format), bundle.base.tokenizer
    rows = [row for axis in AXES for row in probe_rows(axis, "test", n=24)]
    texts = [shape.format_prompt(row.prompt, injection=None, tokenizer=tokenizer) for row in rows]
    batch = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
    bank = ExpertBank.attach(bundle.base.model, experts)
    try:
        with torch.no_grad(), bank.weights(alpha):
            return bundle.base.model(**batch).logits[:, -1].float()  # type: ignore[no-any-return]
    finally:
        bank.detach()


def costs(bundle: Bundle, alpha: torch.Tensor) -> dict[int, tuple[float, float, float]]:
    """Return for each rank the relative error, the largest difference of a logit, the share of equal first tokens."""
    whole, exact = combine(bundle.experts, alpha), last_logits(bundle, bundle.experts, alpha)
    found = {}
    for rank in RANKS:
        cut, error = truncate(whole, rank)
        logits = last_logits(bundle, {"cut": cut}, torch.ones(1))
        same = (logits.argmax(-1) == exact.argmax(-1)).float().mean()
        found[rank] = (error, float((logits - exact).abs().max()), float(same))
    return found


def main(folders: list[str]) -> None:
    bundles = [bundle_of(Path(folder), device="cpu") for folder in folders]
    for name, weights in MIXTURES.items():
        print(f"weights {name}")
        runs = [costs(bundle, torch.tensor(weights)) for bundle in bundles]
        for rank in RANKS:
            errors, differences, same = zip(*(run[rank] for run in runs), strict=True)
            print(f"| {rank} | {mean(errors):.3f} | {max(differences):.2g} | {mean(same):.3f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
