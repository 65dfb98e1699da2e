"""What a person sees while a comparison runs, and the table at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

if TYPE_CHECKING:
    from foveal.data import ImageData
    from foveal.tasks.settings import Settings


class Progress:
    """Two bars on stderr: all runs with the time left, and the epochs of the present one."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Bars(*columns, TextColumn("{task.fields[note]}"), console=self._console)
        self._runs: TaskID | None = None
        self._epochs: TaskID | None = None
        self._total = 0
        self._done = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, settings: Settings, data: ImageData, runs: int) -> None:
        if data.skipped:
            self._console.print(f"Left out because they cannot be read: {len(data.skipped)}", style="yellow")
            for line in data.skipped[:10]:
                self._console.print(f"  {line}", highlight=False, markup=False)
        self._total = settings.epochs
        self._bars.start()
        self._runs = self._bars.add_task("all runs", total=runs * settings.epochs, note="")
        self._epochs = self._bars.add_task("", total=settings.epochs, note="", visible=False)

    def run(self, mechanism: str, seed: int, epochs: float, metrics: Mapping[str, float]) -> None:
        note = f"accuracy {metrics['accuracy']:.3f}" if "accuracy" in metrics else ""
        if self._runs is not None and self._epochs is not None:
            self._bars.update(
                self._epochs, description=f"{mechanism}, seed {seed}", completed=epochs, note=note, visible=True
            )
            self._bars.update(self._runs, completed=self._done * self._total + epochs)

    def finished(self, record: Mapping[str, Any]) -> None:
        self._done += 1
        if self._runs is not None:
            self._bars.update(self._runs, completed=self._done * self._total)
        said = f"accuracy {record['accuracy']:.3f}" if record["status"] == "done" else f"failed: {record['reason']}"
        self._console.print(f"{record['mechanism']}, seed {record['seed']}: {said}", highlight=False, markup=False)

    def phase(self, name: str) -> None:
        self._console.print(name, style="dim")


def print_results(results: dict[str, Any], report: Path) -> None:
    """One row a mechanism: mean accuracy and spread over seeds, and what it costs beside the first one."""
    names, records = list(results["mechanisms"]), results["records"]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("mechanism", no_wrap=True)
    for title in ("accuracy", "parameters", "MACs", "inference", "training\nstep", "training\nmemory"):
        table.add_column(title, justify="right", no_wrap=True)
    for name in names:
        own = [record for record in records if record["mechanism"] == name]
        table.add_row(name, _accuracy(own), *_costs(own[0]))
    console = Console()
    console.print(table)
    first = records[0]
    console.print(
        f"Times are ratios to {names[0]}: {first['inference_ms']['median']:.1f} ms and "
        f"{first['training_ms']['median']:.1f} ms for {first['batch']} images.",
        highlight=False,
    )
    for record in records:
        if record["status"] == "failed":
            console.print(f"{record['mechanism']}, seed {record['seed']} failed: {record['reason']}", markup=False)
    console.print(f"Report: {report}", highlight=False, markup=False, soft_wrap=True)


def _accuracy(records: list[dict[str, Any]]) -> str:
    reached = [100 * record["accuracy"] for record in records if record["status"] == "done"]
    if not reached:
        return "failed"
    spread = f" ± {stdev(reached):.1f}" if len(reached) > 1 else ""
    return f"{fmean(reached):.1f} %{spread}"


def _costs(record: dict[str, Any]) -> list[str]:
    return [
        _short(record["parameters"]),
        _short(record["macs"]),
        f"{record['inference_ms']['ratio']:.2f}",
        f"{record['training_ms']['ratio']:.2f}",
        f"{record['training_peak_bytes'] / 2**20:.1f} MiB",
    ]


def _short(count: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
