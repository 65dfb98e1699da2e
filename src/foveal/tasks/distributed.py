"""The processes of one run: which of them this is, what it takes of a batch, and what they tell each other.

torchrun starts the processes and says in the environment who each is; without it nothing is set up and every function
here answers for one process. What passes here is small (counts, decisions, states of generators) and lies on the CPU:
it goes over gloo also where gradients go over nccl, and waits for no device.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from foveal.errors import BackendError, FovealError, OptionError
from foveal.tasks.attempt import LOST, attempt_store, lost, said_once

T = TypeVar("T")
PATIENCE = timedelta(minutes=10)
"""For the processes of a run to find each other, and for one to wait for the others' part of an exchange."""


_attempt: list[Any] = []  # the store of the attempt that runs


@contextmanager
def together() -> Iterator[None]:
    """Within this, the processes that torchrun started are one run; an error of all of them is said by one.

    Raises:
        ElsewhereError: another process failed and says why.
        BackendError: another process is gone.
        OptionError: see ``start``.
    """
    if not start():
        yield
        return
    store = _attempt[-1]
    try:
        yield
    except FovealError as error:
        raise said_once(error, store, rank()) from error
    except RuntimeError as error:
        if not LOST.search(str(error)):
            raise
        raise said_once(lost(error), store, rank()) from error
    finally:
        finish()


def start() -> bool:
    """Join the processes that torchrun started with this one; returns whether there is a group to leave again.

    Raises:
        OptionError: the environment is incomplete, or there are more processes than GPUs on this machine.
        BackendError: the others could not be reached.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ or dist.is_initialized():
        return False
    if missing := [name for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise OptionError(
            f"distributed: RANK and WORLD_SIZE are set, so {', '.join(missing)} must be too. Start the command by "
            "torchrun, which sets all, or unset those two."
        )
    _take_device()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store, me, count = attempt_store(PATIENCE)
        _attempt.append(store)
        dist.init_process_group(backend, store=store, rank=me, world_size=count, timeout=PATIENCE)
    except (dist.DistError, TimeoutError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise BackendError(
            f"distributed: process {os.environ['RANK']} must reach the others through {where}, got "
            f"{str(error).splitlines()[0]}. Check that all machines run the same command and reach that port."
        ) from error
    return True


def finish() -> None:
    """Leave the group that ``start`` joined."""
    _attempt.clear()
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, 0 to ``world() - 1``."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the process that writes and speaks."""
    return rank() == 0


def share(sequence: Sequence[T], rank: int, world: int) -> Sequence[T]:
    """One process's part of a global batch: equal and contiguous, so that a mean of means is the mean.

    Raises:
        OptionError: the batch cannot be parted evenly.
    """
    if len(sequence) % world:
        raise OptionError(
            f"distributed: a batch must part evenly among {world} processes, got {len(sequence)} images. Use a "
            f"batch_size that {world} times accumulate divides."
        )
    size = len(sequence) // world
    return sequence[rank * size : (rank + 1) * size]


def summed(values: Mapping[str, float]) -> dict[str, float]:
    """Sums over all processes, which must give the same names; in float64 and the same bits everywhere."""
    if world() == 1:
        return dict(values)
    total = torch.tensor([float(values[name]) for name in sorted(values)], dtype=torch.float64)
    dist.all_reduce(total)
    return dict(zip(sorted(values), total.tolist(), strict=True))


def gathered(item: T) -> list[T]:
    """What every process gives, in their order, on every process."""
    if world() == 1:
        return [item]
    items: list[Any] = [None] * world()
    dist.all_gather_object(items, item)
    return items


def broadcast(item: T) -> T:
    """What the main process gives, on every process."""
    if world() == 1:
        return item
    items: list[Any] = [item]
    dist.broadcast_object_list(items, src=0, device=torch.device("cpu"))
    return items[0]


def _take_device() -> None:
    """Each process of a machine has a GPU of its own, where there are any."""
    if not torch.cuda.is_available():
        return
    local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= count:
        raise OptionError(
            f"distributed: every process needs a GPU of its own, got process {local + 1} of a machine with {count}. "
            f"Use --nproc-per-node {count}, or hide the GPUs with CUDA_VISIBLE_DEVICES= to train on the CPU."
        )
    torch.cuda.set_device(local)
