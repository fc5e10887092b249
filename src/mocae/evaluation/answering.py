"""Have one system answer many prompts, in batches of similar length."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mocae.distributed import spread
from mocae.errors import DataError
from mocae.evaluation.log import AnswerLog
from mocae.models import Generator, LoadedBase, is_sharded
from mocae.progress import bar
from mocae.prompts import PromptFormat
from mocae.types import Answer, Example

__all__ = ["Cost", "Generation", "answer_all", "too_long"]


_SPECIAL = 8
"""More tokens than a tokenizer adds around a text."""


@dataclass(frozen=True, slots=True)
class Generation:
    """How answers are generated; greedy unless `do_sample`."""

    max_new_tokens: int
    batch_size: int = 16
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of Hugging Face's `generate`."""
        sampling = {"temperature": self.temperature, "top_p": self.top_p} if self.do_sample else {}
        return {"max_new_tokens": self.max_new_tokens, "do_sample": self.do_sample, **sampling}


@dataclass(frozen=True, slots=True)
class Cost:
    """What answering took.

    Attributes:
        seconds: wall-clock time.
        n_tokens: generated tokens, end-of-text tokens included.
        peak_memory_bytes: of the accelerator, else of the process; None where the system does not tell.
    """

    seconds: float
    n_tokens: int
    peak_memory_bytes: int | None


def too_long(
    base: LoadedBase, examples: Sequence[Example], *, prompt_format: PromptFormat, injection: str | None = None
) -> dict[str, int]:
    """Return prompt id -> tokens of the prompts that leave no room for an answer in the model's context."""
    limit = base.description.context
    found = {}
    for example in examples:
        text = prompt_format.format_prompt(example.prompt, injection=injection, tokenizer=base.tokenizer)
        if len(text.encode()) + _SPECIAL >= limit:  # no tokenizer makes more tokens than bytes
            n_tokens = len(base.tokenizer(text)["input_ids"])
            if n_tokens >= limit:
                found[example.id] = n_tokens
    return found


def answer_all(
    model: Generator,
    examples: Sequence[Example],
    *,
    prompt_format: PromptFormat,
    generation: Generation,
    label: str,
    log: AnswerLog | None = None,
) -> tuple[list[Answer], Cost]:
    """Return one answer an example, in order, and what they cost.

    Rows are batched by length and padded on the left; each keeps its own weights, if they say something of its answer
    (`Generator.mixed`). The answer is cut at token positions,
    so template markers inside a prompt change nothing. Several processes share the batches, which are those of one
    process; where answers are sampled every batch has a seed of its own, so they are the same too.

    Args:
        model: what answers.
        examples: the prompts; with a log they differ.
        prompt_format: how they are written.
        generation: how answers are generated.
        label: for the bar and messages.
        log: keeps every batch when it is answered, in one process; batches it holds whole are not answered again, so
            that answers are the same whether they came in one go or not. The cost is then that of all of them.

    Raises:
        DataError: no examples.
    """
    if not examples:
        raise DataError(f"{label}: no prompts to answer; give at least one")
    tokenizer = model.base.tokenizer
    texts = [prompt_format.format_prompt(e.prompt, injection=model.injection, tokenizer=tokenizer) for e in examples]
    kept = [None if log is None else log.answer(example) for example in examples]
    missing = [some for some in _batches(texts, generation.batch_size) if any(kept[i] is None for i in some)]
    _reset_peak_memory()
    started = time.perf_counter()
    with bar(sum(map(len, missing)), label) as shown:

        def answer(some: Sequence[int]) -> list[Answer]:
            torch.manual_seed(generation.seed + some[0])
            began = time.perf_counter()
            made = _answer_batch(model, [examples[i] for i in some], [texts[i] for i in some], generation)
            if log is not None:
                log.add_answers(made, time.perf_counter() - began)
            shown.advance(len(some))
            return made

        made = spread(missing, answer, lockstep=is_sharded(model.base.model))
        shown.finish()
    new = dict(zip((i for some in missing for i in some), (a for some in made for a in some), strict=True))
    rows = [one for i, held in enumerate(kept) if (one := new.get(i, held)) is not None]
    seconds = time.perf_counter() - started if log is None else log.seconds()
    return rows, Cost(seconds, sum(a.n_tokens for a in rows), _peak_memory_bytes())


def _batches(texts: Sequence[str], size: int) -> list[list[int]]:
    """Return places of texts, those of like length together."""
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
    return [order[i : i + size] for i in range(0, len(order), size)]


def _answer_batch(
    model: Generator,
    examples: Sequence[Example],
    texts: Sequence[str],
    generation: Generation,
) -> list[Answer]:
    tokenizer = model.base.tokenizer
    batch = tokenizer(list(texts), return_tensors="pt", padding=True, return_token_type_ids=False)
    batch = batch.to(model.base.model.device)
    arguments: dict[str, Any] = {
        "attention_mask": batch["attention_mask"],
        "ids": [e.id for e in examples],
        # Processes that hold the model together go on until the last of them has its answer.
        **({"synced_gpus": True} if is_sharded(model.base.model) else {}),
        **generation.arguments(),
    }
    out, alpha, confidence, novelty = model.generate(batch["input_ids"], **arguments)
    new = out[:, batch["input_ids"].shape[1] :]
    made = []
    for i, (example, tokens, row) in enumerate(zip(examples, new.tolist(), alpha.tolist(), strict=True)):
        length = model.base.description.length(tokens)
        text = str(tokenizer.decode(tokens[:length], skip_special_tokens=True)).strip()
        weights = dict(zip(model.experts, (round(w, 6) for w in row), strict=True)) if model.mixed else None
        length = min(length + 1, len(tokens))
        made.append(Answer(example, text, weights, length, confidence=confidence[i], novelty=novelty[i]))
    return made


def _reset_peak_memory() -> None:
    """Start counting anew, where the system can: on Linux by clearing the process's high-water mark."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:  # no Linux, or not allowed: the peak is then that of the whole process so far
        pass


def _peak_memory_bytes() -> int | None:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        lines: Mapping[str, str] = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        )
        return int(lines["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        pass
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, kibibytes elsewhere
