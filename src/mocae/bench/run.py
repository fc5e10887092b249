"""One benchmark run: build the systems, answer in turns, take medians over the rounds."""

import importlib.util
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from mocae import progress
from mocae.bank import save_peft
from mocae.bench import rivals
from mocae.bench import systems as ours
from mocae.bench.memory import bandwidth, peak_bytes, static_bytes
from mocae.bench.result import Benchmark, Row, hardware
from mocae.bench.shapes import Shape, load_model, random_experts
from mocae.bench.systems import System, Workbench
from mocae.errors import ConfigError, unknown_name
from mocae.models import pick_dtype

__all__ = ["SYSTEMS", "missing_library", "run_bench"]

SYSTEMS: Mapping[str, Callable[[Workbench], System]] = MappingProxyType(
    {
        "base": ours.base,
        "stacked": ours.stacked,
        "one-used": ours.one_used,
        "merged": ours.merged,
        "routed": ours.routed,
        "resumed": ours.resumed_routed,
        "int8": ours.int8_base,
        "int8-bank": ours.int8_stacked,
        "peft-1": rivals.peft_one,
        "peft-3": rivals.peft_all,
        "peft-arrow": rivals.peft_arrow,
        "peft-xlora": rivals.peft_xlora,
        "ffn-top2": rivals.ffn_top2,
        "ffn-dense": rivals.ffn_dense,
        "models-3": rivals.whole_models,
    }
)
"""What makes each system; the order is that of the table."""

_NEEDS = {
    **dict.fromkeys(("int8", "int8-bank"), ("torchao", "pip install 'mocae[quantize]'")),
    **dict.fromkeys(
        ("peft-arrow", "peft-xlora", "ffn-top2", "ffn-dense"), ("mocae_rivals", "pip install -e plugins/rivals")
    ),
}
"""Systems that need a package beside this one's: its module, and how to get it."""

_BASE = "base"
_CLOCKS: Mapping[str, Callable[[], float]] = MappingProxyType({"wall": time.perf_counter, "cpu": time.process_time})


class _Timing(NamedTuple):
    first_s: float
    decode_s: float

    @property
    def total_s(self) -> float:
        return self.first_s + self.decode_s


def run_bench(
    shape: Shape,
    *,
    systems: Sequence[str] | None = None,
    batches: Sequence[int] | None = None,
    repeats: int = 5,
    dtype: str = "bf16",
    device: str | None = None,
    clock: str = "wall",
) -> Benchmark:
    """Return the figures of each system at each batch size, as ratios to the base.

    Every round answers the same prompts with each system in turn, beginning with another one each time, so that what
    else the machine does falls on all of them. A ratio is the median over the rounds of system over base.

    Args:
        shape: the model and how it is measured.
        systems: names in `SYSTEMS`, None = all; the base is measured in any case, each once.
        batches: batch sizes, None = those of the shape; each is measured once.
        repeats: rounds; very slow systems take part in the first two only.
        dtype: see `mocae.models.pick_dtype`.
        device: None = CUDA if there is one, else CPU.
        clock: "wall", or "cpu": processor time of this process, which other work on the machine does not lengthen;
            for one thread on a CPU.

    Raises:
        ConfigError: an unknown system or clock, or a number under 1.
        ModelMismatchError: a system cannot be built on this model.
    """
    names = _chosen(systems)
    sizes = tuple(dict.fromkeys(shape.batches if batches is None else batches))
    if repeats < 1 or not sizes or min(sizes) < 1:
        raise ConfigError(f"repeats {repeats} and batch sizes {list(sizes)} must be at least 1, with one batch size")
    if clock not in _CLOCKS:
        raise ConfigError(f"--clock: {unknown_name('clock', clock, _CLOCKS)}")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    rate = bandwidth(place)
    where = hardware(place, bandwidth=rate)
    with tempfile.TemporaryDirectory(prefix="mocae-bench-") as folder, torch.inference_mode():
        built = _build(names, shape, Path(folder), device=place, dtype=pick_dtype(dtype, place))
        rows = [row for size in sizes for row in _measure(built, shape, size, repeats=repeats, rate=rate, clock=clock)]
    order = {name: index for index, name in enumerate(names)}
    settings: dict[str, str | int] = {
        "config": shape.name,
        "dtype": dtype,
        "clock": clock,
        "r": shape.r,
        "experts": shape.n_experts,
        "prompt_tokens": shape.prompt_tokens,
        "new_tokens": shape.new_tokens,
        "repeats": repeats,
    }
    return Benchmark(where, settings, tuple(sorted(rows, key=lambda row: (row.batch, order[row.system]))))


def missing_library(name: str) -> str | None:
    """Return what a system needs that is not installed, and how to get it; None where nothing is missing."""
    module, command = _NEEDS.get(name, ("mocae", ""))
    return None if importlib.util.find_spec(module) is not None else f"{module}; run: {command}"


def _chosen(systems: Sequence[str] | None) -> list[str]:
    for name in systems or ():
        if name not in SYSTEMS:
            raise ConfigError(f"--systems: {unknown_name('system', name, SYSTEMS)}")
        if (library := missing_library(name)) is not None:
            raise ConfigError(f"--systems: {name!r} needs {library}")
    able = [name for name in SYSTEMS if missing_library(name) is None]
    wanted = set(able if systems is None else systems) | {_BASE}
    return [name for name in SYSTEMS if name in wanted]


def _build(
    names: Sequence[str], shape: Shape, folder: Path, *, device: torch.device, dtype: torch.dtype
) -> dict[str, System]:
    model = load_model(shape, dtype=dtype, device=device)
    experts = random_experts(model, shape)
    folders = {name: save_peft(expert, folder / name, base_model_name=shape.name) for name, expert in experts.items()}
    bench = Workbench(model, experts, folders=folders)
    with progress.bar(len(names), f"building systems on {shape.name}") as shown:
        built = {}
        for name in names:
            shown.note(name)
            built[name] = SYSTEMS[name](bench)
            shown.advance()
    return built


def _measure(
    systems: Mapping[str, System], shape: Shape, batch: int, *, repeats: int, rate: float, clock: str
) -> list[Row]:
    model = systems[_BASE].modules[0]
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(batch)
    vocabulary = int(model.config.vocab_size)  # type: ignore[union-attr, arg-type]
    ids = torch.randint(0, vocabulary, (batch, shape.prompt_tokens), generator=generator).to(device)
    timings: dict[str, list[_Timing]] = {name: [] for name in systems}
    memory: dict[str, int] = {}
    with progress.bar(len(systems) * (repeats + 1), f"batch {batch}") as shown:
        for name, system in systems.items():
            shown.note(f"{name}: memory")
            memory[name] = _peak(system, ids, device)  # two tokens, which also warm the system up
            shown.advance()
        for turn in range(repeats):
            order = deque(systems)
            order.rotate(-turn)
            for name in order:
                shown.note(name)
                if turn < ((system := systems[name]).max_repeats or repeats):
                    timings[name].append(_answer(system, ids, shape.new_tokens, device, _CLOCKS[clock]))
                shown.advance()
    reference = timings[_BASE]
    return [
        _row(name, system, batch, timings[name], reference, memory=memory, rate=rate, shape=shape)
        for name, system in systems.items()
    ]


def _peak(system: System, ids: Int[Tensor, "B T"], device: torch.device) -> int:
    with system.context(len(ids)):
        held = static_bytes(system.modules, system.tensors())
        _generate(system, ids, 3)
    with system.context(len(ids)):
        return held + peak_bytes(lambda: _generate(system, ids, 3), device)


def _generate(system: System, ids: Tensor, new_tokens: int) -> None:
    decoder = system.decoder()
    tokens = decoder.prefill(ids)
    for _ in range(new_tokens - 1):
        tokens = decoder.step(tokens)


def _answer(
    system: System, ids: Int[Tensor, "B T"], new_tokens: int, device: torch.device, now: Callable[[], float]
) -> _Timing:
    """Return the times of one generation; what `context` does to prepare is not counted."""
    timed = new_tokens
    if system.max_batch_tokens is not None:
        timed = min(new_tokens, max(2, system.max_batch_tokens // len(ids)))
    with system.context(len(ids)):
        decoder = system.decoder()
        _synchronize(device)
        start = now()
        tokens = decoder.prefill(ids)
        _synchronize(device)
        first = now()
        for _ in range(timed - 1):
            tokens = decoder.step(tokens)
        _synchronize(device)
        return _Timing(first - start, (now() - first) * (new_tokens - 1) / (timed - 1))


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _row(
    name: str,
    system: System,
    batch: int,
    timings: Sequence[_Timing],
    reference: Sequence[_Timing],
    *,
    memory: dict[str, int],
    rate: float,
    shape: Shape,
) -> Row:
    pairs = list(zip(timings, reference, strict=False))  # a slow system takes part in the first rounds only
    decode = [own.decode_s / base.decode_s for own, base in pairs]
    step_s = statistics.median(own.decode_s for own in timings) / (shape.new_tokens - 1)
    return Row(
        system=name,
        batch=batch,
        decode_ratio=statistics.median(decode),
        ttft_ratio=statistics.median(own.first_s / base.first_s for own, base in pairs),
        total_ratio=statistics.median(own.total_s / base.total_s for own, base in pairs),
        memory_ratio=memory[name] / memory[_BASE],
        memory_beyond_experts_ratio=(memory[name] - system.expert_bytes) / memory[_BASE],
        tokens_per_second=batch / step_s,
        spread=_spread(decode),
        rounds=len(pairs),
        read_bytes=system.reads,
        floor_ratio=step_s / (system.reads / rate),
        note=system.note,
    )


def _spread(values: Sequence[float]) -> float:
    """Return the distance between the quartiles, 0 for a single value."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low
