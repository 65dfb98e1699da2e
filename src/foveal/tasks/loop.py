"""The one loop that trains every task.

What was interrupted, killed or lost power goes on from its last checkpoint and ends with the same weights, bit for bit
on a CPU with the same number of threads and processes: batches and augmentation depend on (seed, epoch, index) alone,
learning rates on the step alone, and everything else is in the checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from foveal.errors import DivergedError, OptionError
from foveal.tasks import distributed
from foveal.tasks.agreement import Lookout, by_main
from foveal.tasks.clock import Clock, NoClock
from foveal.tasks.descent import Descent
from foveal.tasks.diverged import divergence
from foveal.tasks.generators import seed_all
from foveal.tasks.losses import Losses
from foveal.tasks.plan import Plan
from foveal.tasks.run_folder import append_metrics, note, write_pictures
from foveal.tasks.scalars import Scalars
from foveal.tasks.standing import begin, process_seed, read, write, write_best
from foveal.tasks.stop import stop_asked
from foveal.tasks.task import Task

__all__ = ["Plan", "fit"]

CURVE = 50  # points of an epoch's loss for TensorBoard

Watch = Callable[[float, Mapping[str, float]], None]
"""Called with the epochs done (a fraction within one) and the last metrics."""


def fit(
    task: Task, plan: Plan, folder: Path, *, watch: Watch | None = None, clock: Clock | None = None
) -> dict[str, float]:
    """Train a task in a folder, from its checkpoint where there is one; in each of several processes.

    Args:
        task: its ``models`` afterwards are what is kept: the moving average where the plan has one.
        plan: how long, from which seed, and what surrounds each step.
        folder: an existing one; gets ``metrics.csv``, ``tensorboard`` and ``checkpoints``.
        watch: is told how far it is.
        clock: is told what begins.

    Returns:
        The metrics after the last epoch, and ``train_seconds`` over all sittings.

    Raises:
        DivergedError: a loss or a metric is not finite; the batch is kept in ``diverged.pt``.
        DataError: no checkpoint is whole, or none can be written.
        OptionError: the plan asks for what this machine or task does not have.
        KeyboardInterrupt: it was interrupted; holds the number of the signal, and a checkpoint of that moment is there.
    """
    sitting = _Sitting(task, plan, folder, watch, clock or NoClock())
    try:
        with stop_asked(patient=distributed.world() > 1) as stop:
            if task.measured_at_start:
                sitting.measure_start()
            while sitting.at.epoch < plan.epochs:
                sitting.steps(stop)
                sitting.end_epoch(stop)
    finally:
        sitting.scalars.close()
    sitting.descent.show()
    return {**sitting.at.metrics, "train_seconds": sitting.at.seconds}


class _Sitting:
    """A run from where it stands until it ends or is stopped."""

    def __init__(self, task: Task, plan: Plan, folder: Path, watch: Watch | None, clock: Clock) -> None:
        self.task, self.plan, self.folder, self.watch, self.clock = task, plan, folder, watch, clock
        task.prepare()
        saved = by_main(lambda: read(folder))
        seed_all(plan.seed)
        self.descent = Descent(task, plan, clock, saved)
        seed_all(process_seed(plan.seed))
        self.at = begin(folder, saved, self.descent)
        self.losses = Losses(self.at.sums, self.at.counted)
        # Metrics of an epoch are shown at its last step; a checkpoint of that step is from before they were measured.
        self.scalars = Scalars(folder, self.done + (self.at.step < task.steps_per_epoch))
        self.lookout = Lookout(plan, self.descent.device)
        self.main, self.since, self.fresh = distributed.is_main(), time.monotonic(), saved is None

    @property
    def done(self) -> int:
        """Steps since the beginning."""
        return self.at.epoch * self.task.steps_per_epoch + self.at.step

    def steps(self, stop: list[int]) -> None:
        """The steps of an epoch that are left."""
        at, task, each = self.at, self.task, self.task.steps_per_epoch
        self.descent.learn()
        self.clock.begin("data")
        for parts in task.batches(self.plan.seed, at.epoch, at.step):
            factor = task.schedule(self.done / each, self.plan.epochs)
            told = self.descent.step(parts, self.done, factor)
            self.clock.begin("rest")
            self.losses.add(at.step, told, self.descent.skipped)
            at.step += 1
            if at.step == each or self.lookout.now(at.step):
                self._look(stop, factor)
            if self.watch is not None:
                self.watch(at.epoch + at.step / each, at.metrics)
            self.clock.begin("data")

    def _look(self, stop: list[int], factor: float) -> None:
        """See how the last steps went, and write a checkpoint if one is due."""
        bad, asked, due = self.lookout.agree(self.losses.look(), stop, self.at.step)
        if any(bad):
            raise divergence(self.task, self.plan, self.folder, self.at.epoch, bad)
        every = max(1, self.task.steps_per_epoch // CURVE)
        if self.plan.tensorboard and self.main and (self.at.step % every == 0 or not self.lookout.always):
            rates = {f"rate/{name}": max(rate) * factor for name, rate in self.descent.rates.items()}
            self.scalars.add(self.done, {f"step/{k}": v for k, v in self.losses.newest.items()} | rates)
        if asked or due:
            self._save()
        if asked:
            raise KeyboardInterrupt(asked)

    def measure_start(self) -> None:
        """Metrics of what nothing was learned by yet, written down as epoch 0."""
        if self.fresh:
            self._measure({}, 0)
            self._count_time()
            by_main(self._write_metrics)

    def _measure(self, losses: Mapping[str, float], epoch: int) -> None:
        """Metrics and pictures after so many epochs."""
        self.clock.begin("evaluate")
        self.descent.show()
        with self.descent.autocast():
            self.at.metrics = self._finite({**losses, **self.task.evaluate()}, epoch)
            pictures = self.task.pictures()
        by_main(lambda: write_pictures(self.folder, epoch, pictures))
        if self.plan.tensorboard and self.main:
            self.scalars.show(self.done, pictures)

    def end_epoch(self, stop: list[int]) -> None:
        """Metrics, written down, and a checkpoint if one is due."""
        at = self.at
        self._measure(self._mean_losses(), at.epoch + 1)
        self.clock.begin("checkpoint")
        at.epoch, at.step, self.losses = at.epoch + 1, 0, Losses({}, {})
        self._count_time()
        by_main(self._write_metrics)
        self._keep_best()
        last = at.epoch == self.plan.epochs
        _, asked, due = self.lookout.agree(None, stop, 0)
        if (asked or last or due) and not self._save() and last:
            told = "weights are no numbers any more after the last epoch"
            raise DivergedError(f"fit: {told}. Use a smaller learning rate.")
        if self.watch is not None:
            self.watch(float(at.epoch), at.metrics)
        if asked and not last:
            raise KeyboardInterrupt(asked)

    def _mean_losses(self) -> dict[str, float]:
        sums = distributed.summed(self.losses.sums)
        counted = distributed.summed({name: float(count) for name, count in self.losses.counted.items()})
        return {f"train_{name}": value / counted[name] for name, value in sums.items()}

    def _write_metrics(self) -> None:
        line = {"epoch": self.at.epoch, "seconds": round(self.at.seconds, 3), **self.at.metrics}
        append_metrics(self.folder, line)
        if self.plan.tensorboard:
            self.scalars.add(self.done, {f"epoch/{name}": value for name, value in self.at.metrics.items()})
            self.scalars.flush()

    def _finite(self, metrics: Mapping[str, float], epoch: int) -> dict[str, float]:
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise DivergedError(f"fit: {name} became {value} after epoch {epoch}. Use a smaller learning rate.")
        return dict(metrics)

    def _count_time(self) -> None:
        now = time.monotonic()
        self.at.seconds += now - self.since
        self.since = now

    def _whole(self) -> bool:
        """Whether every weight is a number, in every process."""
        weights = [weight for model in self.task.models.values() for weight in model.parameters()]
        with torch.no_grad():
            broken = sum(not bool(weight.isfinite().all()) for weight in weights)
        return distributed.summed({"broken": float(broken)})["broken"] == 0

    def _keep_best(self) -> None:
        name, at = self.plan.best, self.at
        if name is None:
            return
        if name in self.task.seldom and name not in at.metrics:
            return
        if name not in at.metrics:
            known = ", ".join(at.metrics)
            raise OptionError(f"fit: best names a metric, got {name!r}. Use one of {known}.")
        value = at.metrics[name]
        if at.best is None or (value < at.best if self.plan.least else value > at.best):
            at.best = value
            write_best(self.folder, at, self.task.models, self.plan)

    def _save(self) -> bool:
        """Write a checkpoint; whether there was something to write."""
        self.clock.begin("checkpoint")
        self._count_time()
        if not self._whole():
            # The loss of this step still was a number, that of the next will not be, and goes on from the one before.
            by_main(lambda: note(self.folder, f"no checkpoint after step {self.done}: weights are no numbers any more"))
            return False
        self.at.sums, self.at.counted = self.losses.sums, self.losses.counted
        self.scalars.flush()
        write(self.folder, self.at, self.descent)
        self.lookout.saved = time.monotonic()
        self.clock.begin("rest")
        return True
