"""Batches of a split, read here or by worker processes: the same ones whatever their number.

Workers are started once for each split and kept: the epoch travels with the indices, so none holds a stale one. What a
split keeps in memory is taken at once without workers, which would cost more than they save.
"""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from foveal.data.samples import Samples
from foveal.errors import FovealError
from foveal.tasks.packing import packed, unpacked
from foveal.tasks.stop import leave_to_parent

Wanted = tuple[int, int, list[int]]
"""Seed, epoch and indices of a batch."""
MOST = 4


class Reader:
    """Reads batches of splits. ``workers`` None takes as many as there are cores, at most ``MOST``."""

    def __init__(self, workers: int | None) -> None:
        own = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self.workers = min(MOST, max(1, own)) if workers is None else workers
        self._loaders: dict[int, tuple[_Chosen, DataLoader[Any]]] = {}

    def read(self, split: Samples, seed: int, epoch: int, chosen: Sequence[list[int]]) -> Iterator[Any]:
        """What ``Samples.batch`` gives for each list of indices, in order.

        Raises:
            FovealError: what a worker met.
        """
        if not split.decodes or self.workers == 0:
            split.at(seed, epoch)
            for indices in chosen:
                yield split.batch(indices)
            return
        if id(split) not in self._loaders:
            self._loaders[id(split)] = self._start(split)
        sampler, loader = self._loaders[id(split)]
        sampler.wanted = [(seed, epoch, indices) for indices in chosen]
        for read in loader:
            if isinstance(read, FovealError):
                raise read
            yield unpacked(read)

    def _start(self, split: Samples) -> tuple[_Chosen, DataLoader[Any]]:
        sampler = _Chosen()
        loader: DataLoader[Any] = DataLoader(
            _Batches(split),
            sampler=sampler,
            batch_size=None,
            num_workers=self.workers,
            persistent_workers=True,
            worker_init_fn=leave_to_parent,
            pin_memory=torch.cuda.is_available(),
            # A generator of its own: the loader would draw from the global one each time it starts, also when resumed.
            generator=torch.Generator().manual_seed(0),
        )
        # Workers leave SIGTERM to this process, so at its end they would not heed that of the interpreter, which waits
        # for them: they are told before, also where an error still holds the iterator. What is registered last runs
        # first, and torch, whose loaders dismiss nobody once the end has begun, registered when it was imported.
        # A loader that goes with the reader in one sweep of garbage would find its queues closed before it could tell
        # them, so it is kept until then.
        dismissed = weakref.finalize(self, _dismiss, loader)
        dismissed.atexit = False
        atexit.register(dismissed)
        return sampler, loader


def _dismiss(loader: DataLoader[Any]) -> None:
    """Tell the workers of a loader to end, and wait for them."""
    iterator = getattr(loader, "_iterator", None)
    if iterator is not None:
        iterator._shutdown_workers()


class _Chosen:
    """The sampler of a loader that lives longer than an epoch: gives what was chosen last."""

    def __init__(self) -> None:
        self.wanted: list[Wanted] = []

    def __iter__(self) -> Iterator[Wanted]:
        return iter(self.wanted)

    def __len__(self) -> int:
        return len(self.wanted)


class _Batches(Dataset[Any]):
    """A split by whole batches. An error a user can cause is handed over as it is, without the worker's trace."""

    def __init__(self, split: Samples) -> None:
        self.split = split

    def __getitem__(self, wanted: Wanted) -> Any:
        seed, epoch, indices = wanted
        if (self.split.seed, self.split.epoch) != (seed, epoch):
            self.split.at(seed, epoch)
        try:
            return packed(self.split.batch(indices))
        except FovealError as error:
            return error
