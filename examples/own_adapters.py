"""Bring adapters that were trained elsewhere: no training by mocae, only judged answers and a router.

    python examples/own_adapters.py --out out/own

Three LoRA adapters are trained with TRL and PEFT alone. They share nothing but their base model: ranks 4, 8 and 16, one
with rsLoRA, other linears, other layers. `mocae build` then lets each answer a file of prompts, judges the answers and
fits the router. By hand, once adapters and prompts are there:

    mocae build --base pocket --expert helpfulness=out/own/adapters/helpfulness \
        --expert harmlessness=out/own/adapters/harmlessness --expert honesty=out/own/adapters/honesty \
        --calibration out/own/prompts.jsonl --judge pocket --max-new-tokens 24 --out out/own/artifact
    mocae chat out/own/artifact --show-routing

About five minutes on one core. Synthetic, tiny model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

import mocae
from mocae.models import load_base
from mocae.pipelines.build import build_recipe
from mocae.pipelines.run import RunResult, run
from mocae.pocket.world import axis_rows, probe_rows
from mocae.prompts import FORMATS
from mocae.types import Example

ATTENTION, FEED_FORWARD = ["q_proj", "k_proj", "v_proj", "o_proj"], ["gate_proj", "up_proj", "down_proj"]
ADAPTERS = {
    "helpfulness": {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION},
    "harmlessness": {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
    "honesty": {
        **{"r": 16, "lora_alpha": 8, "use_rslora": True, "target_modules": FEED_FORWARD},
        "layers_to_transform": [1, 2],
    },
}
QUESTIONS = (
    "Name the capital city of Peru.",
    "How do I kill a computer process?",
    "How do I pick a neighbour's pocket?",
)


def train(base: str, rows: Sequence[Example], folder: Path, lora: Mapping[str, Any]) -> Path:
    """Train one adapter with TRL and write it as PEFT does; nothing here is mocae's but the base model's tokenizer."""
    loaded, text = load_base(base, dtype="fp32", device="cpu"), FORMATS.get("plain")
    pairs = [
        {"prompt": text.format_prompt(row.prompt, injection=None), "completion": text.format_response(row.response)}
        for row in rows
        if row.response
    ]
    settings = SFTConfig(
        **{"output_dir": str(folder), "save_strategy": "no", "report_to": [], "disable_tqdm": True},
        **{"use_cpu": True, "bf16": False, "dataloader_pin_memory": False, "activation_checkpointing": False},
        **{"num_train_epochs": 3, "per_device_train_batch_size": 16, "learning_rate": 2e-3, "max_length": 96},
        **{"lr_scheduler_type": "cosine", "logging_steps": 50, "seed": 0},
    )
    trainer = SFTTrainer(
        model=loaded.model,
        args=settings,
        train_dataset=datasets.Dataset.from_list(pairs),
        processing_class=loaded.tokenizer,
        peft_config=LoraConfig(task_type="CAUSAL_LM", **lora),
    )
    trainer.train()
    trainer.model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def write_prompts(path: Path, n: int) -> Path:
    """Write what `--calibration` reads: a prompt a line, whose kind it is, and the facts its judge needs."""
    rows = [row for axis in ADAPTERS for row in probe_rows(axis, "calibration", n=n)]
    keys = ("prompt", "axis", "probe", "kind", "group", "facts")
    lines = (json.dumps({key: getattr(row, key) for key in keys}, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def build(base: str, out: Path, *, judge: str = "pocket", max_new_tokens: int = 24, progress: bool = True) -> RunResult:
    """Do what `mocae build` does with the adapters and prompts in `out`."""
    recipe = build_recipe(
        base=base,
        experts={name: str(out / "adapters" / name) for name in ADAPTERS},
        calibration=out / "prompts.jsonl",
        judges=[{"judge": judge}],
        max_new_tokens=max_new_tokens,
        settings=["base.dtype=fp32"],
    )
    return run(recipe, out=out / "artifact", progress=progress)


def show(result: RunResult, artifact: Path, questions: Sequence[str] = QUESTIONS) -> None:
    """Print what the report says, and what the artifact answers."""
    for name, entry in result.report["systems"].items():
        scores = {axis: score["value"] for axis, score in entry["axis_scores"].items()}
        print(f"{name:22}", *(f"{axis} {'-' if s is None else f'{s:.2f}'}" for axis, s in scores.items()))
    model = mocae.load(artifact)
    for question in questions:
        reply = model.reply(question)
        print(question, "->", reply.text, {name: round(weight, 2) for name, weight in reply.weights.items()})


def main() -> None:
    """Run the example on the pocket world."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    out = parser.parse_args().out
    torch.manual_seed(0)
    for axis, lora in ADAPTERS.items():
        train("pocket", axis_rows(axis, n=900), out / "adapters" / axis, lora)
    write_prompts(out / "prompts.jsonl", n=120)
    show(build("pocket", out), out / "artifact")


if __name__ == "__main__":
    main()
