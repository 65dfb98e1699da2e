"""The one loop that trains every task.

What was interrupted, killed or lost power goes on from its last checkpoint and ends with the same weights, bit for bit
on a CPU with the same number of threads: batches and augmentation depend on (seed, epoch, index) alone, learning rates
on the step alone, and everything else is in the checkpoint.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveal.errors import DivergedError
from foveal.tasks import checkpoint
from foveal.tasks.run_folder import append_metrics, keep_metrics
from foveal.tasks.stop import stop_asked
from foveal.tasks.task import Task

LOOK = 25  # steps between looks at whether the loss is still a number; each look waits for the device


@dataclass(frozen=True)
class Plan:
    """How long and from which seed. ``save_seconds`` is the least time between two checkpoints."""

    epochs: int
    seed: int
    save_seconds: float = 30.0
    precision: str = "no"
    clip: float | None = None


@dataclass
class Position:
    """Where a run stands: whole epochs, steps into the next, and sums of what its steps wrote down."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)


Watch = Callable[[float, Mapping[str, float]], None]
"""Called with the epochs done (a fraction within one) and the last metrics."""


def fit(task: Task, plan: Plan, folder: Path, *, watch: Watch | None = None) -> dict[str, float]:
    """Train a task in a folder, from its checkpoint where there is one.

    Returns:
        The metrics after the last epoch, and ``train_seconds`` over all sittings.

    Raises:
        DivergedError: a loss or a metric is not finite.
        DataError: a checkpoint is damaged or cannot be written.
        KeyboardInterrupt: it was interrupted; a checkpoint of that moment is there.
    """
    sitting = _Sitting(task, plan, folder, watch)
    with stop_asked() as stop:
        while sitting.at.epoch < plan.epochs:
            sitting.steps(stop)
            sitting.end_epoch(stop)
    return {**sitting.metrics, "train_seconds": sitting.at.seconds}


class _Sitting:
    """A run from where it stands until it ends or is stopped."""

    def __init__(self, task: Task, plan: Plan, folder: Path, watch: Watch | None) -> None:
        from accelerate import Accelerator

        self.task, self.plan, self.folder, self.watch = task, plan, folder, watch
        self.accelerator = Accelerator(mixed_precision=plan.precision)
        _seed(plan.seed)
        task.build()
        _seed(plan.seed + self.accelerator.process_index)
        self.bare = dict(task.models)
        task.models = {name: self.accelerator.prepare(model) for name, model in self.bare.items()}
        self.optimizers = {name: self.accelerator.prepare(made) for name, made in task.optimizers().items()}
        self.rates = {name: [group["lr"] for group in made.param_groups] for name, made in self.optimizers.items()}
        self.at, self.metrics = Position(), dict[str, float]()
        self._restore()
        self.saved = self.clock = time.monotonic()

    def _restore(self) -> None:
        state = checkpoint.load(self.folder, self.bare)
        if state is not None:
            for name, made in self.optimizers.items():
                made.load_state_dict(state["optimizers"][name])
            self.at, self.metrics = Position(**state["position"]), state["metrics"]
        if self.accelerator.is_main_process:
            keep_metrics(self.folder, self.at.epoch)

    def steps(self, stop: list[int]) -> None:
        """The steps of an epoch that are left."""
        at, task = self.at, self.task
        for model in task.models.values():
            model.train()
        sums = {name: torch.tensor(value, device=self.accelerator.device) for name, value in at.sums.items()}
        for batch in task.batches(self.plan.seed, at.epoch, at.step):
            for name, value in self._step(batch).items():
                sums[name] = sums[name] + value if name in sums else value
            at.step += 1
            due = bool(stop) or time.monotonic() - self.saved >= self.plan.save_seconds
            if due or at.step % LOOK == 0:
                at.sums = self._finite(sums)
            if due:
                self._save()
            if stop:
                raise KeyboardInterrupt
            if self.watch is not None:
                self.watch(at.epoch + at.step / task.steps_per_epoch, self.metrics)
        at.sums = self._finite(sums)

    def end_epoch(self, stop: list[int]) -> None:
        """Metrics, written down, and a checkpoint if one is due."""
        at, task = self.at, self.task
        for model in task.models.values():
            model.eval()
        losses = {f"train_{name}": value / task.steps_per_epoch for name, value in at.sums.items()}
        self.metrics = self._finite(losses | task.evaluate())
        at.epoch, at.step, at.sums = at.epoch + 1, 0, {}
        self._count_time()
        if self.accelerator.is_main_process:
            append_metrics(self.folder, {"epoch": at.epoch, "seconds": round(at.seconds, 3), **self.metrics})
        last = at.epoch == self.plan.epochs
        if stop or last or time.monotonic() - self.saved >= self.plan.save_seconds:
            self._save()
        if self.watch is not None:
            self.watch(float(at.epoch), self.metrics)
        if stop and not last:
            raise KeyboardInterrupt

    def _step(self, batch: Any) -> dict[str, Tensor]:
        """Each turn's forward, backward and descent. Returns what the turns wrote down."""
        from accelerate.utils import send_to_device

        task, accelerator = self.task, self.accelerator
        done = self.at.epoch * task.steps_per_epoch + self.at.step
        factor = task.schedule(done / (self.plan.epochs * task.steps_per_epoch))
        for name, made in self.optimizers.items():
            for group, rate in zip(made.param_groups, self.rates[name], strict=True):
                group["lr"] = rate * factor
        batch = send_to_device(batch, accelerator.device)
        written: dict[str, Tensor] = {}
        for turn in task.turns(done):
            with accelerator.autocast():
                told = task.step(batch, turn)
            accelerator.backward(told["loss"])
            if self.plan.clip is not None:
                accelerator.clip_grad_norm_(task.models[turn].parameters(), self.plan.clip)
            self.optimizers[turn].step()
            for made in self.optimizers.values():
                made.zero_grad()
            prefix = "" if len(task.models) == 1 else f"{turn}_"
            written |= {prefix + name: value.detach() for name, value in told.items()}
        return written

    def _finite(self, values: Mapping[str, Tensor | float]) -> dict[str, float]:
        told = {name: float(value) for name, value in values.items()}
        for name, value in told.items():
            if not math.isfinite(value):
                where = f"within {self.at.step} steps of epoch {self.at.epoch + 1}"
                raise DivergedError(f"fit: {name} became {value} {where}. Use a smaller --lr.")
        return told

    def _count_time(self) -> None:
        now = time.monotonic()
        self.at.seconds += now - self.clock
        self.clock = now

    def _save(self) -> None:
        self._count_time()
        if self.accelerator.is_main_process:
            inner = {name: made.state_dict() for name, made in self.optimizers.items()}
            state = {"position": asdict(self.at), "metrics": self.metrics, "optimizers": inner}
            checkpoint.save(self.folder, self.bare, state)
        self.saved = time.monotonic()


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
