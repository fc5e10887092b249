"""What a system holds and reads: tensors it keeps, the peak of one generation, the machine's bandwidth."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["bandwidth", "peak_bytes", "read_bytes", "static_bytes"]

_COPIED_BYTES = 256 * 2**20
_COPY_REPEATS = 5


def static_bytes(modules: Iterable[nn.Module], more: Iterable[Tensor] = ()) -> int:
    """Return the bytes of all parameters and buffers and of `more`; memory that several tensors share counts once."""
    tensors = [t for module in modules for t in (*module.parameters(), *module.buffers())]
    plain = (part for tensor in (*tensors, *more) for part in _parts(tensor))
    storages = {s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in plain)}
    return sum(storages.values())


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the plain tensors a tensor is made of: itself, or the values and scales of a quantised one."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _parts(getattr(tensor, name))


def read_bytes(model: nn.Module) -> int:
    """Return the bytes of weights one pass reads: all but an embedding table that is no output head as well."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    heads = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    skipped = tables - heads
    read = (part for p in model.parameters() if id(p) not in skipped for part in _parts(p))
    return sum(part.numel() * part.element_size() for part in read)


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Return the most memory that `work` held at once, beyond what was held before.

    CUDA keeps this number. On a CPU it is summed over the allocations and releases that PyTorch's profiler records:
    exact and repeatable, unlike the resident memory of the process, but without scratch space inside libraries.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with (
        _silent_stderr(),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile,
    ):
        work()
    results = profile.profiler.kineto_results if profile.profiler is not None else None
    assert results is not None  # the profiler has just ended
    events = sorted((e.start_ns(), e.nbytes()) for e in results.events() if e.name() == "[memory]")
    held = peak = 0
    for _, change in events:
        held += change
        peak = max(peak, held)
    return peak


def bandwidth(device: torch.device) -> float:
    """Return the memory bandwidth in bytes a second: the best of five copies of 256 MiB, read and written."""
    source = torch.empty(_COPIED_BYTES, dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(_COPY_REPEATS):
        _synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        _synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * _COPIED_BYTES / best


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """The library under the profiler writes to file descriptor 2 whatever its log level; exceptions pass as always."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
