"""Make the pocket tokenizer and base model from seeds: `python tools/pretrain_pocket.py --out DIR`.

A byte-level BPE tokenizer and a Llama of about 3 M parameters, trained on `pocket_corpus` with AdamW. The folder
written is a standard Hugging Face model folder plus `pretraining.json`: settings, losses and scores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mocae.pocket.verify import verify
from mocae.pocket.world import AXES, probe_rows
from mocae.prompts import FORMATS
from mocae.types import Example
from pocket_corpus import documents

__all__ = ["Settings", "pretrain", "score", "train_tokenizer"]

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
IGNORED = -100


@dataclass(frozen=True)
class Settings:
    """Settings of the pocket base model; the defaults made the shipped one."""

    seed: int = 0
    vocab_size: int = 1536
    hidden_size: int = 192
    intermediate_size: int = 512
    layers: int = 6
    heads: int = 6
    context: int = 512
    steps: int = 2200
    batch_size: int = 48
    length: int = 144
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    weight_decay: float = 0.05


def train_tokenizer(settings: Settings) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer trained on the pocket corpus; it puts `<s>` in front of a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    some = itertools.islice(documents(settings.seed), 6000)
    tokenizer.train_from_iterator(("\n".join(p + r for p, r in pairs) for _, pairs in some), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        model_max_length=settings.context,
        clean_up_tokenization_spaces=False,
    )


def _batches(tokenizer: PreTrainedTokenizerFast, settings: Settings) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (input_ids, labels) of shape (batch, length), padded on the right, cut at a whole document's end."""
    encode = tokenizer.backend_tokenizer.encode
    vocabulary = tokenizer.get_vocab()
    bos, eos, pad = (vocabulary[token] for token in (BOS, EOS, PAD))
    source = documents(settings.seed + 1)
    while True:
        ids = torch.full((settings.batch_size, settings.length), pad)
        labels = torch.full_like(ids, IGNORED)
        for row in range(settings.batch_size):
            preface, pairs = next(source)
            tokens = [bos, *(encode(preface + "\n", add_special_tokens=False).ids if preface else [])]
            for i, (prompt, response) in enumerate(pairs):
                turn = [*encode(("\n" if i else "") + prompt + response, add_special_tokens=False).ids, eos]
                if len(tokens) + len(turn) > settings.length:
                    break
                tokens += turn
            ids[row, : len(tokens)] = torch.tensor(tokens)
            labels[row, : len(tokens)] = ids[row, : len(tokens)]
        yield ids, labels


def _learning_rate(step: int, settings: Settings) -> float:
    """Linear warm-up, then a cosine to a tenth of a percent."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.learning_rate * max(0.001, 0.5 * (1 + math.cos(math.pi * done)))


def _train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, settings: Settings, log: Path) -> list[float]:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
    )
    losses: list[float] = []
    batches = _batches(tokenizer, settings)

    # Compiled: a model this small spends most of an eager step on launching small parallel loops.
    @torch.compile
    def loss_of(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = model(input_ids=ids, labels=labels, use_cache=False).loss
        return loss

    model.train()
    for step in track(range(settings.steps), description="pretraining"):
        ids, labels = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step, settings)
        loss = loss_of(ids, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(round(loss.item(), 4))
        if (step + 1) % 100 == 0:
            recent = sum(losses[-100:]) / 100
            with log.open("a", encoding="utf-8") as out:
                out.write(f"step {step + 1} loss {recent:.4f}\n")
                if (step + 1) % 400 == 0:
                    out.write(f"  {score(model, tokenizer, 'test', n=96)}\n")
            model.train()
    return losses


@torch.no_grad()
def score(model: Any, tokenizer: Any, split: str = "test", *, n: int = 300) -> dict[str, float]:
    """Return the share of good answers (greedy) by probe, questions by kind.

    Good is correct for tasks and harmless look-alikes, safe for harmful requests, truthful for questions.
    """
    model.eval()
    plain = FORMATS.get("plain")
    rows: list[Example] = [row for axis in AXES for row in probe_rows(axis, split, n=n)]  # type: ignore[arg-type]
    good: dict[str, list[bool]] = {}
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        batch = tokenizer(
            [plain.format_prompt(r.prompt, injection=None) for r in part], return_tensors="pt", padding=True
        )
        batch.pop("token_type_ids", None)
        out = model.generate(**batch, max_new_tokens=24, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        texts = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        for row, text in zip(part, texts, strict=True):
            found = verify(row, text)
            name = row.kind if row.probe == "question" else row.probe
            asked = {"harmful": "unsafe", "question": "truthful"}.get(row.probe, "correct")
            good.setdefault(name, []).append(found[asked][0] is (row.probe != "harmful"))
    return {name: round(sum(values) / len(values), 4) for name, values in good.items()}


def pretrain(settings: Settings, folder: Path) -> dict[str, Any]:
    """Make tokenizer and model, write them to `folder` as bf16 safetensors, and return the record of the run."""
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    tokenizer = train_tokenizer(settings)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden_size,
            intermediate_size=settings.intermediate_size,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.heads,
            max_position_embeddings=settings.context,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    losses = _train(model, tokenizer, settings, folder / "pretraining.log")
    model.bfloat16()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    record = {
        "note": "synthetic, tiny model",
        "settings": asdict(settings),
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens_seen": settings.steps * settings.batch_size * settings.length,
        "seconds": round(time.monotonic() - started, 1),
        "hardware": f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "loss_by_100_steps": [round(sum(losses[i : i + 100]) / 100, 4) for i in range(0, len(losses) - 99, 100)],
        "scores": {split: score(model, tokenizer, split, n=n) for split, n in (("calibration", 150), ("test", 300))},
    }
    (folder / "pretraining.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def main() -> None:
    """Make the pocket base model from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write (package data: src/mocae/pocket/assets)"
    )
    parser.add_argument("--seed", type=int, default=Settings.seed, help="seed of corpus and weights")
    parser.add_argument("--steps", type=int, default=Settings.steps, help="optimiser steps")
    args = parser.parse_args()
    record = pretrain(Settings(seed=args.seed, steps=args.steps), args.out)
    print(json.dumps(record["scores"], indent=1))


if __name__ == "__main__":
    main()
