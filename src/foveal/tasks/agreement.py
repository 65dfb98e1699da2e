"""What the processes of a run settle together: when to look up from their steps, and what the main one did for all."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from foveal.tasks import distributed
from foveal.tasks.losses import Bad
from foveal.tasks.plan import Plan

T = TypeVar("T")
INTERVAL = 1.0  # seconds between two looks, about, where a look makes processes or a device wait


def by_main(work: Callable[[], T]) -> T:
    """Let the main process do something; its result, or its error, is everyone's."""
    if distributed.world() == 1:
        return work()
    outcome: tuple[T | None, Exception | None] = (None, None)
    if distributed.is_main():
        try:
            outcome = (work(), None)
        except Exception as error:
            outcome = (None, error)
    result, failed = distributed.broadcast(outcome)
    if failed is not None:
        raise failed
    return result  # type: ignore[return-value]


@dataclass(frozen=True)
class View:
    """What one process sees when it looks up."""

    bad: Bad | None
    stop: int
    """The signal that asked to stop; 0 for none."""
    due: bool
    interval: int
    """Steps to the next look."""


class Lookout:
    """Says after which steps to look up: after each in one process on a CPU, about once a second elsewhere.

    A look settles whether losses are numbers, whether anyone was asked to stop, and whether a checkpoint is due.
    """

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.plan = plan
        self.always = distributed.world() == 1 and device.type == "cpu"
        self.left, self._interval = 1, 1
        self.saved = self._looked = time.monotonic()

    def now(self, step: int) -> bool:
        """Whether to look up after this step of an epoch: the same for all processes."""
        self.left -= 1
        return self.always or self.left <= 0 or self._by_steps(step)

    def agree(self, bad: Bad | None, stop: list[int], step: int) -> tuple[list[Bad | None], int, bool]:
        """What each found bad, the signal to stop by, and whether to write a checkpoint. Every process must call."""
        now = time.monotonic()
        if not self.always:
            each = max(now - self._looked, 1e-6) / max(self._interval - self.left, 1)
            self._looked, self._interval = now, max(1, int(min(INTERVAL, self.plan.save_seconds) / each))
        due = now - self.saved >= self.plan.save_seconds or self._by_steps(step)
        views = distributed.gathered(View(bad, stop[0] if stop else 0, due, self._interval))
        self.left = self._interval = views[0].interval
        return [view.bad for view in views], max(view.stop for view in views), views[0].due

    def _by_steps(self, step: int) -> bool:
        return self.plan.save_steps is not None and step > 0 and step % self.plan.save_steps == 0
