"""A whole run in seconds: a tiny random base model, a few rows of the pocket world, and a judge that tosses coins.

A random model answers nothing right, so verdicts come from a hash of prompt and answer: about half are acceptable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mocae.config import Recipe, parse_recipe
from mocae.judges import JUDGES
from mocae.types import Answer, Verdict
from tiny import tiny_llama, tiny_tokenizer

AXES = ("helpfulness", "harmlessness", "honesty")
SYSTEMS: list[Any] = [
    "base",
    *(f"expert:{axis}" for axis in AXES),
    "uniform",
    "sum",
    {"name": "less honest", "policy": "static", "options": {"weights": {"helpfulness": 1.0, "honesty": -0.5}}},
    "linear",
    "alignx",
    "oracle",
    "joint",
    "sequential",
]
WANTED = {
    "task": ("correct",),
    "harmful": ("unsafe",),
    "benign": ("refusal", "correct"),
    "question": ("truthful", "informative"),
}


class CoinJudge:
    """Verdicts from a hash; about one in sixteen is unscored."""

    name = "coin"
    judgements = ("correct", "unsafe", "refusal", "truthful", "informative")
    quality = None

    def judge(self, answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
        return [{name: self._toss(answer, name) for name in WANTED.get(answer.example.probe, ())} for answer in answers]

    def _toss(self, answer: Answer, judgement: str) -> Verdict:
        coin = hashlib.sha256(f"{answer.example.prompt}\0{answer.text}\0{judgement}".encode()).digest()[0]
        if coin < 8:
            return Verdict(None, "unscored", self.name, "coin on its edge")
        return Verdict(float(coin % 2), "heads" if coin % 2 else "tails", self.name)


if "coin" not in JUDGES:
    JUDGES.register("coin")(CoinJudge)


def tiny_base(folder: Path, seed: int = 0) -> Path:
    """Write a random base model with its tokenizer as a Hugging Face folder and return the folder."""
    tiny_llama(layers=3, seed=seed, max_position_embeddings=256).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_recipe(base: Path, *settings: str, axes: Sequence[str] = AXES, **changes: Any) -> Recipe:
    """Return the recipe of a whole run on `base`; `settings` are as after `--set`, `changes` replace top-level keys."""
    sizes = {"train": 12, "calibration": 12, "test": 9}
    values: dict[str, Any] = {
        "name": "tiny",
        "base": {"model": str(base), "dtype": "fp32", "device": "cpu"},
        "prompt_format": "plain",
        "axes": [
            {
                "name": axis,
                "injection": f"Think of {axis}.",
                **{split: {"source": "pocket", "options": {"split": split, "n": n}} for split, n in sizes.items()},
            }
            for axis in axes
        ],
        "experts": {
            "r": 2,
            "lora_alpha": 8,
            "from_layer": 1,
            "max_length": 200,
            "injection_rate": 0.5,
            "optimizer": {"learning_rate": 0.02, "epochs": 1.0, "batch_size": 4},
        },
        "features": {"k": 8, "probes_per_axis": 8},
        "routing": {"outcome": {"l2": 0.001}},
        "generation": {"max_new_tokens": 4, "batch_size": 8},
        "judges": [{"judge": "coin"}],
        "systems": SYSTEMS,
        "report": {"resamples": 50, "examples": 1},
    }
    return parse_recipe(values | changes, settings)
