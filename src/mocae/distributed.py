"""Several processes on one job, started by `accelerate launch` or `torchrun`; alone, every function here costs nothing.

Every process runs the same program. Work that can be cut is cut in `spread`, what only one may do is done by the main
process (rank 0), and what must be the same everywhere is `agreed`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from mocae.errors import ConfigError

__all__ = ["agreed", "alone", "is_main", "join", "rank", "size", "split_batch", "spread", "wait"]

T = TypeVar("T")
R = TypeVar("R")

_PATIENCE = timedelta(days=7)
"""How long a process waits for the others: as long as it takes. The launcher notices a dead one, not a clock."""


def join(*, cpu: bool) -> None:
    """Join the other processes of the launch, if there are any; joining twice is fine.

    Args:
        cpu: the job computes on the CPU, also where there is an accelerator.

    Raises:
        ConfigError: the launcher asks for a kind of parallelism that would train but not do the rest of the job.
    """
    splits_training_only = {
        "FSDP": os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true",
        "DeepSpeed's ZeRO stage 3": os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3",
    }
    for name, asked in splits_training_only.items():
        if asked:
            raise ConfigError(
                f"accelerate is configured for {name}, which would split the model in training only; launch with "
                "distributed_type: MULTI_GPU (recipes/accelerate/) and set base.shard to true, which splits it "
                "everywhere"
            )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        PartialState(cpu=cpu, timeout=_PATIENCE)


def alone(command: str) -> None:
    """Refuse several processes for a command that cannot share its work.

    Raises:
        ConfigError: a launcher started several.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"{command} works in one process and a launcher started several; start it without one")


def _group() -> Any:
    """Return torch.distributed where processes have joined, else None."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    import torch.distributed as dist

    return dist if dist.is_available() and dist.is_initialized() else None


def size() -> int:
    """Return how many processes work on the job."""
    group = _group()
    return 1 if group is None else int(group.get_world_size())


def rank() -> int:
    """Return which of them this one is, from 0."""
    group = _group()
    return 0 if group is None else int(group.get_rank())


def is_main() -> bool:
    """Return whether this is the process that writes."""
    return rank() == 0


def wait() -> None:
    """Return when every process has come here."""
    group = _group()
    if group is not None:
        group.barrier()


def agreed(value: T) -> T:
    """Return the main process's value, on every process."""
    group = _group()
    if group is None:
        return value
    box = [value]
    group.broadcast_object_list(box, src=0)
    return box[0]


def spread(items: Sequence[T], work: Callable[[T], R], *, lockstep: bool = False) -> list[R]:
    """Return `work(item)` for each item, in order, on every process; each process does its share.

    Which process does an item changes nothing about how it is done, so the results are those of one process.

    Args:
        items: the same on every process.
        work: what to do with one; its result travels between the processes.
        lockstep: every process must work equally often (a sharded model computes together): one whose share is over
            repeats the first item and drops the result.
    """
    group = _group()
    if group is None:
        return [work(item) for item in items]
    n = group.get_world_size()
    mine = [work(item) for item in items[group.get_rank() :: n]]
    if lockstep and len(mine) < -(-len(items) // n):
        work(items[0])
    everyone: list[list[R]] = [[] for _ in range(n)]
    group.all_gather_object(everyone, mine)
    return [everyone[i % n][i // n] for i in range(len(items))]


def split_batch(batch_size: int, accumulation: int, processes: int, at_most: int | None = None) -> tuple[int, int]:
    """Return rows a process sees at once, and batches it sums, so that a step sees the rows it sees in one process.

    With `at_most` a process sees no more than so many at once.

    >>> split_batch(8, 1, 2), split_batch(4, 8, 4), split_batch(3, 2, 2), split_batch(8, 1, 1, at_most=3)
    ((4, 1), (4, 2), (3, 1), (2, 4))

    Raises:
        ConfigError: the rows of a step cannot be shared out evenly.
    """
    rows = batch_size * accumulation
    if rows % processes:
        raise ConfigError(
            f"experts.optimizer: a step sees batch_size {batch_size} x gradient_accumulation {accumulation} = {rows} "
            f"rows, which {processes} processes cannot share evenly; make it a multiple of {processes}"
        )
    share = rows // processes
    at_once = max(n for n in range(1, min(batch_size, at_most or batch_size, share) + 1) if share % n == 0)
    return at_once, share // at_once
