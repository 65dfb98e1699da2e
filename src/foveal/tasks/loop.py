"""The one loop that trains every task.

What was interrupted, killed or lost power goes on from its last checkpoint and ends with the same weights, bit for bit
on a CPU with the same number of threads: batches and augmentation depend on (seed, epoch, index) alone, learning rates
on the step alone, and everything else is in the checkpoint.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor

from foveal.errors import DivergedError, OptionError
from foveal.tasks import checkpoint, distributed
from foveal.tasks.clock import Clock, NoClock
from foveal.tasks.descent import Descent
from foveal.tasks.generators import generator_states, restore_generators, seed_all
from foveal.tasks.plan import Plan
from foveal.tasks.run_folder import append_metrics, keep_metrics, note
from foveal.tasks.stop import stop_asked
from foveal.tasks.task import Task

__all__ = ["Plan", "fit"]


@dataclass
class Position:
    """Where a run stands: whole epochs, steps into the next, and sums of what its steps wrote down."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    best: float | None = None


Watch = Callable[[float, Mapping[str, float]], None]
"""Called with the epochs done (a fraction within one) and the last metrics."""


def fit(
    task: Task, plan: Plan, folder: Path, *, watch: Watch | None = None, clock: Clock | None = None
) -> dict[str, float]:
    """Train a task in a folder, from its checkpoint where there is one.

    Args:
        task: its ``models`` afterwards are what is kept: the moving average where the plan has one.
        plan: how long, from which seed, and what surrounds each step.
        folder: an existing one; gets ``metrics.csv`` and ``checkpoints``.
        watch: is told how far it is.
        clock: is told what begins.

    Returns:
        The metrics after the last epoch, and ``train_seconds`` over all sittings.

    Raises:
        DivergedError: a loss or a metric is not finite.
        DataError: no checkpoint is whole, or none can be written.
        OptionError: the plan asks for what this machine or task does not have.
        KeyboardInterrupt: it was interrupted; a checkpoint of that moment is there.
    """
    sitting = _Sitting(task, plan, folder, watch, clock or NoClock())
    with stop_asked() as stop:
        while sitting.at.epoch < plan.epochs:
            sitting.steps(stop)
            sitting.end_epoch(stop)
    sitting.descent.show()
    return {**sitting.metrics, "train_seconds": sitting.at.seconds}


class _Sitting:
    """A run from where it stands until it ends or is stopped."""

    def __init__(self, task: Task, plan: Plan, folder: Path, watch: Watch | None, clock: Clock) -> None:
        self.task, self.plan, self.folder, self.watch, self.clock = task, plan, folder, watch, clock
        saved = self._read()
        seed_all(plan.seed)
        self.descent = Descent(task, plan, clock, saved)
        self.at, self.metrics = Position(), dict[str, float]()
        seed_all(plan.seed + distributed.rank())
        if saved is not None:
            state = saved.state()
            self.descent.load_state(state)
            self.at, self.metrics = Position(**state["position"]), state["metrics"]
            restore_generators(state["random"])
        if distributed.is_main():
            keep_metrics(folder, self.at.epoch)
        self.saved = self.since = time.monotonic()

    def _read(self) -> checkpoint.Saved | None:
        saved = checkpoint.read(self.folder)
        for line in saved.damage if saved is not None else ():
            told = f"{line}. The run goes on from {saved.path}." if saved is not None else line
            warnings.warn(told, stacklevel=4)
            note(self.folder, told)
        return saved

    def steps(self, stop: list[int]) -> None:
        """The steps of an epoch that are left."""
        at, task = self.at, self.task
        self.descent.learn()
        self.clock.begin("data")
        for parts in task.batches(self.plan.seed, at.epoch, at.step):
            done = at.epoch * task.steps_per_epoch + at.step
            factor = task.schedule(done / task.steps_per_epoch, self.plan.epochs)
            told = self.descent.step(parts, done, factor)
            self.clock.begin("rest")
            at.step += 1
            for name, value in self._finite(told).items():
                at.sums[name] = at.sums.get(name, 0.0) + value
            if stop or self._due():
                self._save()
            if stop:
                raise KeyboardInterrupt
            if self.watch is not None:
                self.watch(at.epoch + at.step / task.steps_per_epoch, self.metrics)
            self.clock.begin("data")

    def end_epoch(self, stop: list[int]) -> None:
        """Metrics, written down, and a checkpoint if one is due."""
        at, task = self.at, self.task
        self.clock.begin("evaluate")
        self.descent.show()
        losses = {f"train_{name}": value / task.steps_per_epoch for name, value in at.sums.items()}
        with self.descent.autocast():
            self.metrics = self._finite(losses | task.evaluate())
        self.clock.begin("rest")
        at.epoch, at.step, at.sums = at.epoch + 1, 0, {}
        self._count_time()
        if distributed.is_main():
            append_metrics(self.folder, {"epoch": at.epoch, "seconds": round(at.seconds, 3), **self.metrics})
        self._keep_best()
        last = at.epoch == self.plan.epochs
        if stop or last or self._due():
            self._save()
        if self.watch is not None:
            self.watch(float(at.epoch), self.metrics)
        if stop and not last:
            raise KeyboardInterrupt

    def _due(self) -> bool:
        steps = self.plan.save_steps
        return time.monotonic() - self.saved >= self.plan.save_seconds or (
            steps is not None and self.at.step % steps == 0 and self.at.step > 0
        )

    def _finite(self, values: Mapping[str, Tensor | float]) -> dict[str, float]:
        told = {name: float(value) for name, value in values.items()}
        for name, value in told.items():
            if not math.isfinite(value):
                where = f"within {self.at.step} steps of epoch {self.at.epoch + 1}"
                raise DivergedError(f"fit: {name} became {value} {where}. Use a smaller --lr.")
        return told

    def _count_time(self) -> None:
        now = time.monotonic()
        self.at.seconds += now - self.since
        self.since = now

    def _keep_best(self) -> None:
        name = self.plan.best
        if name is None:
            return
        if name not in self.metrics:
            known = ", ".join(self.metrics)
            raise OptionError(f"fit: best names a metric, got {name!r}. Use one of {known}.")
        if self.at.best is None or self.metrics[name] > self.at.best:
            self.at.best = self.metrics[name]
            if distributed.is_main():
                weights = {name: model.state_dict() for name, model in self.task.models.items()}
                checkpoint.save(self.folder, weights, {"epoch": self.at.epoch, "metrics": self.metrics}, "best")

    def _save(self) -> None:
        self.clock.begin("checkpoint")
        self._count_time()
        if distributed.is_main():
            position = {"position": asdict(self.at), "metrics": self.metrics, "random": generator_states()}
            weights = {name: model.state_dict() for name, model in self.descent.weighed().items()}
            checkpoint.save(self.folder, weights, {**position, **self.descent.state()})
        self.saved = time.monotonic()
        self.clock.begin("rest")
