"""Tasks that learn from one split and are measured on another: which items each step, part and process takes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from foveal.errors import OptionError
from foveal.tasks import distributed
from foveal.tasks.kind import Data
from foveal.tasks.optimizers import optimizer
from foveal.tasks.reading import Reader
from foveal.tasks.recipe import Training
from foveal.tasks.schedules import rate
from foveal.tasks.task import Task

Moment = tuple[int, int, int]
"""Seed, epoch and step that a batch belongs to."""


class SplitTask(Task):
    """Learn from ``data.train``, measure on ``data.val``; a subclass builds, steps and evaluates.

    A step's items are the same whatever the number of processes and parts: a part is a contiguous share of them.

    Args:
        data: what is learned from.
        recipe: batch size, accumulation and schedule.
        items: what the data holds, in a word.

    Raises:
        OptionError: there are fewer items than a step takes, or processes and parts do not divide them.
    """

    def __init__(self, data: Data, recipe: Training, items: str = "images") -> None:
        self.train, self.val = data.train, data.val
        self.training = recipe
        self.batch = recipe.batch_size
        parts = recipe.accumulate * distributed.world()
        if self.batch > len(self.train):
            raise OptionError(
                f"train: --batch-size must be at most the {len(self.train)} training {items} of {data.name}, got "
                f"{self.batch}. Use a smaller one."
            )
        if self.batch % parts:
            raise OptionError(
                f"train: --batch-size must be a multiple of {parts} (processes times --accumulate), got {self.batch}. "
                f"Use {max(1, self.batch // parts) * parts}, say."
            )
        self.steps_per_epoch = len(self.train) // self.batch
        self.part = self.batch // parts
        self.format = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.reader = Reader(recipe.data.workers)
        self.last: Tensor | None = None
        """The loss of the last step that was taken, for who wants to show it."""

    @abstractmethod
    def step(self, batch: Any, turn: str) -> Mapping[str, Tensor]:
        """``batch`` is what ``Samples.batch`` gave, and its ``Moment``; see ``Task.step``."""

    def optimizers(self) -> dict[str, Optimizer]:
        return {"model": optimizer(self.models["model"], self.training.optimizer)}

    def order(self, seed: int, epoch: int) -> Tensor:
        """Every index of ``train`` once; each step takes as many as a batch has, and the last ones may be left over."""
        return self.train.order(seed, epoch)

    def batches(self, seed: int, epoch: int, start: int) -> Iterator[list[Any]]:
        order = self.order(seed, epoch)
        steps = range(start, self.steps_per_epoch)
        chosen = [part for step in steps for part in self._parts(order, step)]
        read = self.reader.read(self.train, seed, epoch, chosen)
        for step in steps:
            yield [(part, (seed, epoch, step)) for part in islice(read, self.training.accumulate)]

    def _parts(self, order: Tensor, step: int) -> list[list[int]]:
        """This process's share of a step's indices, in parts."""
        whole = order[step * self.batch : (step + 1) * self.batch].tolist()
        own = distributed.share(whole, distributed.rank(), distributed.world())
        return [list(own[n : n + self.part]) for n in range(0, len(own), self.part)]

    def schedule(self, epoch: float, epochs: int) -> float:
        highest = self.training.optimizer.lr
        return rate(self.training.schedule, highest, epoch, epochs) / highest

    def size(self, batch: Any) -> int:
        return self.part

    def identify(self, seed: int, epoch: int, step: int) -> Mapping[str, Tensor]:
        order = self.order(seed, epoch)
        return {"indices": order[step * self.batch : (step + 1) * self.batch]}

    def validation(self, size: int | None = None) -> Iterator[tuple[Any, Sequence[int]]]:
        """Batches of this process's share of ``val``, each with the indices that count.

        Every process gets as many batches, the last ones of some with no index that counts, and item 0 once more: the
        parts of a model that is split over them are exchanged while it runs.

        Args:
            size: items of a batch; ``part`` where None.
        """
        size = self.part if size is None else size
        count, me, all_ = len(self.val), distributed.rank(), distributed.world()
        first, end = count * me // all_, count * (me + 1) // all_
        chosen = [list(range(n, min(n + size, end))) for n in range(first, end, size)]
        missing = ceil(ceil(count / all_) / size) - len(chosen)
        read = self.reader.read(self.val, 0, 0, [*chosen, *[[0]] * missing])
        yield from zip(read, [*chosen, *[list[int]()] * missing], strict=True)
