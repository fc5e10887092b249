"""Where a model runs and in which number format: asked of the hardware or measured, never read from a name."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch

from mocae.errors import ConfigError

__all__ = ["DTYPES", "pick_device", "pick_dtype"]

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}


def pick_device(wanted: str) -> str:
    """Return "cuda" or "cpu" for "auto", "cuda" or "cpu"; of several accelerators each process of a launch has its own.

    Raises:
        ConfigError: an accelerator is asked for and there is none.
    """
    device = "cuda" if torch.cuda.is_available() and wanted != "cpu" else "cpu"
    if wanted == "cuda" and device == "cpu":
        raise ConfigError("base.device: 'cuda' asked for, and torch finds no such device; use auto or cpu")
    return device


def pick_dtype(name: str, device: str | torch.device) -> torch.dtype:
    """Return the dtype to load weights in.

    Args:
        name: "bf16", "fp32" or "fp16" are taken as they are. "auto" asks the hardware: on CUDA bf16 where
            `torch.cuda.is_bf16_supported()` says so without emulation, else fp16; on a CPU bf16 where a small
            matrix product measured faster in it than in fp32 (once a process, about 20 ms), else fp32; fp32
            on every other kind of device. Because "auto" depends on the machine, a run whose numbers must be
            repeated elsewhere names its dtype.
        device: where the model will run, e.g. "cpu" or "cuda:0".

    Raises:
        ConfigError: `name` is none of the four.
    """
    if name in DTYPES:
        return DTYPES[name]
    if name != "auto":
        accepted = ", ".join(map(repr, ("auto", *DTYPES)))
        raise ConfigError(f"dtype {name!r} is not known. Accepted: {accepted}; choose one of them")
    kind = torch.device(device).type
    if kind == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if supported else torch.float16
    if kind == "cpu" and _cpu_is_faster_in_bf16():
        return torch.bfloat16
    return torch.float32


@functools.cache
def _cpu_is_faster_in_bf16() -> bool:
    """Return whether bf16 beats fp32 in a 16 x 768 by 768 x 768 product, best of ten runs each."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        x, weight = torch.ones(16, 768, dtype=dtype), torch.ones(768, 768, dtype=dtype)
        seconds[dtype] = _best_seconds(functools.partial(torch.nn.functional.linear, x, weight), repeats=10)
    return seconds[torch.bfloat16] < seconds[torch.float32]


def _best_seconds(run: Callable[[], object], *, repeats: int) -> float:
    run()  # the first call pays for kernel selection
    best = float("inf")
    with torch.inference_mode():
        for _ in range(repeats):
            start = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - start)
    return best
