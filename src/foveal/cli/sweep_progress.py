"""What a person sees while a sweep runs."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from foveal.tasks.grid import Run
from foveal.tasks.kinds import kind_named


class SweepProgress:
    """A bar for all runs and one for each that trains, on standard error; a line for each that has ended.

    Where standard error is no terminal there are no bars; the lines stay.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        shown = self._console.is_terminal and not quiet
        self._bars = Progress(
            *columns, TextColumn("{task.fields[note]}"), console=self._console, transient=True, disable=not shown
        )
        self._epochs: dict[str, int] = {}
        self._at: dict[str, float] = {}
        self._tasks: dict[str, TaskID] = {}
        self._kinds: dict[str, str] = {}
        self._all: TaskID | None = None

    def __enter__(self) -> SweepProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, runs: tuple[Run, ...]) -> None:
        self._epochs = {run.name: run.recipe.epochs for run in runs}
        self._kinds = {run.name: run.recipe.task for run in runs}
        self._bars.start()
        self._all = self._bars.add_task(f"{len(runs)} runs", total=sum(self._epochs.values()), note="")

    def at(self, name: str, epochs: float, metrics: Mapping[str, float]) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=self._epochs[name], note="")
        note = self._first(name, metrics)
        self._bars.update(self._tasks[name], completed=epochs, note=note)
        self._count(name, epochs)

    def done(self, name: str, record: Mapping[str, Any]) -> None:
        if name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))
        self._count(name, self._epochs[name])
        said = f"failed: {record.get('reason')}"
        if record["status"] == "done":
            said = self._first(name, record) or "done"
        self._print(f"{name}: {said}")

    def _first(self, name: str, metrics: Mapping[str, Any]) -> str:
        """The first metric of the run's task that was measured."""
        known = kind_named(self._kinds[name]).metrics.items()
        return next((f"{metric.words} {metric.text(metrics[key])}" for key, metric in known if key in metrics), "")

    def said(self, line: str) -> None:
        self._print(line)

    def _count(self, name: str, epochs: float) -> None:
        self._at[name] = epochs
        if self._all is not None:
            self._bars.update(self._all, completed=sum(self._at.values()))

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
