"""What a person sees while a run trains, and the lines at its end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from foveal.tasks.kinds import CLASSIFICATION, kind_named, kind_of
from foveal.tasks.recipe import Training

MOST = 5  # metrics in a line
RECENT = 0.05  # weight of the last step in the time that a step takes


class TrainingProgress:
    """A bar on standard error with loss, rate, images a second and the time left, and a line an epoch.

    Where standard error is no terminal there is no bar; the lines stay.
    """

    def __init__(self, recipe: Training, *, quiet: bool = False) -> None:
        self.recipe = recipe
        self._console = Console(stderr=True, quiet=quiet)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        shown = self._console.is_terminal and not quiet
        self._bars = Progress(
            *columns, TextColumn("{task.fields[note]}"), console=self._console, transient=True, disable=not shown
        )
        self._task: TaskID | None = None
        self._seen: Mapping[str, float] | None = None
        self._stepped: float | None = None
        self._seconds = 0.0

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, line: str) -> None:
        """What is done now."""
        self._console.print(line, style="dim", highlight=False, markup=False)

    def at(self, epochs: float, metrics: Mapping[str, float]) -> None:
        """So many epochs are done."""
        if self._task is None:
            self._bars.start()
            self._task = self._bars.add_task("", total=self.recipe.epochs, note="")
        measured = {name: value for name, value in metrics.items() if name not in ("rate", "step_loss")}
        ended = self._seen is not None and measured != self._seen
        self._seen = measured
        # What lies between an epoch's end and the next step is no part of a step.
        self._count(None if ended else time.monotonic())
        note = f"loss {metrics.get('step_loss', float('nan')):.3f}  rate {metrics['rate']:.2e}{self._speed('  ')}"
        description = f"epoch {min(int(epochs) + 1, self.recipe.epochs)} of {self.recipe.epochs}"
        self._bars.update(self._task, completed=epochs, description=description, note=note)
        if ended:
            self.say_epoch(round(epochs), metrics)

    def say_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """A line for an epoch that has ended."""
        told = _told(self.recipe.task, metrics)
        told += [f"training {name[6:].replace('_', ' ')} {metrics[name]:.4f}" for name in metrics if _is_loss(name)]
        told += [f"rate {metrics['rate']:.2e}"]
        self._console.print(
            f"epoch {epoch}: {', '.join(told)}{self._speed(', ')}", highlight=False, markup=False, soft_wrap=True
        )

    def _count(self, now: float | None) -> None:
        if now is not None and self._stepped is not None:
            took = now - self._stepped
            self._seconds = took if not self._seconds else (1 - RECENT) * self._seconds + RECENT * took
        self._stepped = now

    def _speed(self, before: str) -> str:
        if not self._seconds:
            return ""
        return f"{before}{self.recipe.batch_size / self._seconds:,.0f} {kind_of(self.recipe).items}/s"


def print_result(record: Mapping[str, Any], folder: str) -> None:
    """What a run ended with, and where it lies."""
    console, kind = Console(), kind_named(record.get("task", CLASSIFICATION))
    told = _told(kind.name, record)
    for name in (key for key in record if key.startswith("best_") and key != "best_epoch"):
        best = kind.metric(name.removeprefix("best_")).text(record[name])
        told.append(f"best {best} after epoch {record['best_epoch']}")
    said = f"{record['model']} on {record['data']}: {', '.join(told)}; {record['train_seconds']:.0f} s of training"
    console.print(said, highlight=False, markup=False, soft_wrap=True)
    console.print(f"Run: {Path(folder)}", highlight=False, markup=False, soft_wrap=True)


def _told(task: str, metrics: Mapping[str, Any]) -> list[str]:
    """A few metrics of a task in its order: rather every one's main form than all forms of the first."""
    known = kind_named(task).metrics
    there = [name for name in known if name in metrics]
    main = [name for name in there if not any(name != other and name.startswith(other) for other in there)]
    told = [*main, *(name for name in there if name not in main)][:MOST]
    return [f"{known[name].words} {known[name].text(metrics[name])}" for name in there if name in told]


def _is_loss(name: str) -> bool:
    """Whether it is what a turn descends; other parts of it stand in metrics.csv."""
    return name.startswith("train_") and name.endswith("loss")
