"""The one loop that trains every task.

What was interrupted, killed or lost power goes on from its last checkpoint and ends with the same weights, bit for bit
on a CPU with the same number of threads: batches and augmentation depend on (seed, epoch, index) alone, learning rates
on the step alone, and everything else is in the checkpoint.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from foveal.tasks import checkpoint
from foveal.tasks.run_folder import append_metrics, keep_metrics
from foveal.tasks.task import DivergedError, Task

if TYPE_CHECKING:
    from accelerate import Accelerator

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
        DivergedError: a loss is not finite.
        DataError: a checkpoint is damaged or cannot be written.
        KeyboardInterrupt: it was interrupted; a checkpoint of that moment is there.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision=plan.precision)
    _seed(plan.seed)
    task.build()
    _seed(plan.seed + accelerator.process_index)
    bare = dict(task.models)
    task.models = {name: accelerator.prepare(model) for name, model in bare.items()}
    optimizers = {name: accelerator.prepare(made) for name, made in task.optimizers().items()}
    rates = {name: [group["lr"] for group in made.param_groups] for name, made in optimizers.items()}
    at, metrics = Position(), dict[str, float]()
    state = checkpoint.load(folder, bare)
    if state is not None:
        for name, made in optimizers.items():
            made.load_state_dict(state["optimizers"][name])
        at, metrics = Position(**state["position"]), state["metrics"]
    if accelerator.is_main_process:
        keep_metrics(folder, at.epoch)
    saved = time.monotonic()

    def save(least: float) -> None:
        nonlocal saved
        at.seconds += time.monotonic() - clock.pop()
        clock.append(time.monotonic())
        if time.monotonic() - saved >= least and accelerator.is_main_process:
            inner = {name: made.state_dict() for name, made in optimizers.items()}
            checkpoint.save(folder, bare, {"position": asdict(at), "metrics": metrics, "optimizers": inner})
            saved = time.monotonic()

    clock = [time.monotonic()]
    with _stop_asked() as stop:
        while at.epoch < plan.epochs:
            for model in task.models.values():
                model.train()
            sums = {name: torch.tensor(value, device=accelerator.device) for name, value in at.sums.items()}
            for batch in task.batches(plan.seed, at.epoch, at.step):
                done = at.epoch * task.steps_per_epoch + at.step
                factor = task.schedule(done / (plan.epochs * task.steps_per_epoch))
                for name, made in optimizers.items():
                    for group, rate in zip(made.param_groups, rates[name], strict=True):
                        group["lr"] = rate * factor
                for name, value in _update(task, accelerator, optimizers, batch, done, plan.clip).items():
                    sums[name] = sums[name] + value if name in sums else value
                at.step += 1
                if at.step % LOOK == 0 or stop or time.monotonic() - saved >= plan.save_seconds:
                    at.sums = _finite(sums, at)
                    save(0.0 if stop else plan.save_seconds)
                if stop:
                    raise KeyboardInterrupt
                if watch is not None:
                    watch(at.epoch + at.step / task.steps_per_epoch, metrics)
            losses = {name: value / task.steps_per_epoch for name, value in _finite(sums, at).items()}
            for model in task.models.values():
                model.eval()
            metrics = {f"train_{name}": value for name, value in losses.items()} | task.evaluate()
            at.epoch, at.step, at.sums = at.epoch + 1, 0, {}
            if accelerator.is_main_process:
                append_metrics(folder, {"epoch": at.epoch, "seconds": round(at.seconds, 3), **metrics})
            save(0.0 if stop or at.epoch == plan.epochs else plan.save_seconds)
            if watch is not None:
                watch(float(at.epoch), metrics)
            if stop and at.epoch < plan.epochs:
                raise KeyboardInterrupt
    return {**metrics, "train_seconds": at.seconds}


def _update(
    task: Task, accelerator: Accelerator, optimizers: Mapping[str, Any], batch: Any, step: int, clip: float | None
) -> dict[str, Tensor]:
    """One step: each turn's forward, backward and descent. Returns what the turns wrote down."""
    from accelerate.utils import send_to_device

    batch = send_to_device(batch, accelerator.device)
    written: dict[str, Tensor] = {}
    for turn in task.turns(step):
        with accelerator.autocast():
            told = task.step(batch, turn)
        accelerator.backward(told["loss"])
        if clip is not None:
            accelerator.clip_grad_norm_(task.models[turn].parameters(), clip)
        optimizers[turn].step()
        optimizers[turn].zero_grad()
        prefix = "" if len(task.models) == 1 else f"{turn}_"
        written |= {prefix + name: value.detach() for name, value in told.items()}
    return written


def _finite(sums: Mapping[str, Tensor], at: Position) -> dict[str, float]:
    values = {name: float(value) for name, value in sums.items()}
    for name, value in values.items():
        if not np.isfinite(value):
            raise DivergedError(
                f"fit: {name} became {value} within {at.step} steps of epoch {at.epoch + 1}. Use a smaller --lr."
            )
    return values


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def _stop_asked() -> Iterator[list[int]]:
    """Holds the signal once someone asks to stop; the loop then ends after its step. A second one ends it at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
