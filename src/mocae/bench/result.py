"""What a benchmark found: one row a system and batch size, as ratios to the base model of the same run."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from mocae.outputs import MADE

__all__ = ["Benchmark", "Row", "hardware"]

_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Row:
    """One system at one batch size. Ratios are to the base of the same round: 1 is the base, smaller is better.

    Attributes:
        system: its name.
        batch: prompts answered at once.
        decode_ratio: time of all tokens after the first.
        ttft_ratio: time to the first token.
        total_ratio: time of the whole answer.
        memory_ratio: peak of all tensors.
        memory_beyond_experts_ratio: the same without the experts' own weights.
        tokens_per_second: new tokens of all rows, after the first, a second.
        spread: distance between the quartiles of `decode_ratio` over the rounds.
        rounds: rounds measured.
        read_bytes: weights read for one token of one prompt.
        floor_ratio: time of a decoding step over the time the memory needs to bring those weights.
        note: what makes this row special.
    """

    system: str
    batch: int
    decode_ratio: float
    ttft_ratio: float
    total_ratio: float
    memory_ratio: float
    memory_beyond_experts_ratio: float
    tokens_per_second: float
    spread: float
    rounds: int
    read_bytes: int
    floor_ratio: float
    note: str


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A whole run: where it ran, what was asked, and its rows."""

    hardware: Mapping[str, str | int | float]
    settings: Mapping[str, str | int]
    rows: tuple[Row, ...]

    def to_json(self) -> str:
        """Return the run as JSON with `schema`, `hardware`, `settings` and `rows`."""
        record = {
            "about": MADE,
            "schema": _SCHEMA,
            "hardware": dict(self.hardware),
            "settings": dict(self.settings),
            "rows": [asdict(row) for row in self.rows],
        }
        return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def hardware(device: torch.device, *, bandwidth: float) -> dict[str, str | int | float]:
    """Return what the numbers depend on: processor, threads, versions, bandwidth, and how busy the machine is."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "copy_bytes_per_second": round(bandwidth),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else -1.0,
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
