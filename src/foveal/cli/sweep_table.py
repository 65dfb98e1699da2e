"""What ``foveal sweep`` prints: the plan before, the table after."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from foveal.cli.training_plan import what
from foveal.tasks.grid import Grid
from foveal.tasks.plain import as_plain
from foveal.tasks.preview import Preview
from foveal.tasks.recipe_check import leaves

TITLES = {"accuracy": "top-1", "accuracy_top5": "top-5", "accuracy_held_out": "top-1,\nheld out"}


def print_plan(grid: Grid, previews: Mapping[str, Preview], *, as_json: bool) -> None:
    """Every row with its runs, parameters and published values, and what all runs share."""
    if as_json:
        print(json.dumps(as_record(grid, previews), indent=1))
        return
    console = Console()
    for title, line in (("paper", grid.about.paper), ("table", grid.about.table), ("figures", grid.about.source)):
        if line:
            _say(console, f"{title}: {line}")
    metrics = list(dict.fromkeys(name for told in grid.published.values() for name in told))
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("row")
    for title in ("seeds", "epochs", "parameters", *(f"{_title(grid, name)}\npublished" for name in metrics)):
        table.add_column(title, justify="right")
    for row, preview in previews.items():
        own = [run for run in grid.runs if run.row == row]
        seeds = " ".join(str(run.recipe.seed) for run in own)
        figures = [_figure(grid.published[row].get(name)) for name in metrics]
        table.add_row(row, seeds, str(preview.recipe.epochs), f"{preview.parameters:,}", *figures)
    console.print(table)
    epochs = sum(run.recipe.epochs for run in grid.runs)
    _say(console, f"{len(grid.runs)} runs, {epochs:,} epochs in all; {_data(previews)}")
    _say(console, f"they differ in {', '.join(differing(grid)) or 'nothing'}")
    _print_about(console, grid)


def _title(grid: Grid, name: str) -> str:
    from foveal.tasks.kinds import kind_of

    return TITLES.get(name) or kind_of(grid.base).metric(name).words


def as_record(grid: Grid, previews: Mapping[str, Preview]) -> dict[str, Any]:
    """Plain values for JSON."""
    rows = [
        {
            "row": row,
            "runs": [run.name for run in grid.runs if run.row == row],
            "parameters": preview.parameters,
            "steps_per_epoch": preview.steps_per_epoch,
            "published": dict(grid.published[row]),
        }
        for row, preview in previews.items()
    ]
    runs = {run.name: as_plain(run.recipe) for run in grid.runs}
    return {"grid": grid.name, "about": as_plain(grid.about), "rows": rows, "runs": runs}


def differing(grid: Grid) -> list[str]:
    """The options that are not the same in all runs."""
    values: dict[str, list[Any]] = {}
    for run in grid.runs:
        for name, value in leaves(run.recipe):
            if not name.startswith("about."):
                values.setdefault(name, []).append(value)
    return [name for name, found in values.items() if any(value != found[0] for value in found)]


def print_sweep(results: Mapping[str, Any], folder: Path) -> None:
    """One line a row, then what failed and where everything lies."""
    console, entries = Console(), results["table"]
    metrics = [name for name in entries[0]["metrics"] if _is_told(entries, name)]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("row")
    for title in ("runs", "parameters"):
        table.add_column(title, justify="right", no_wrap=True)
    for name in metrics:
        measure = results["measures"].get(name, {})
        told = TITLES.get(name) or str(measure.get("words", name))
        for title in (told, "published", "difference") if _is_published(entries, name) else (told,):
            table.add_column(title, justify="right", no_wrap=True)
    for entry in entries:
        cells = [cell for name in metrics for cell in _cells(entry["metrics"][name], _is_published(entries, name))]
        parameters = "" if entry["parameters"] is None else f"{entry['parameters']:,}"
        table.add_row(entry["row"], str(entry["runs"]) if entry["runs"] else "failed", parameters, *cells)
    console.print(table)
    for record in results["records"]:
        if record["status"] == "failed":
            _say(console, f"{record['run']} failed: {record['reason']}")
    for line in results["about"]["notes"]:
        _say(console, f"note: {line}")
    _say(console, f"Report: {folder / 'report.html'}")


def _print_about(console: Console, grid: Grid) -> None:
    lines = [("note", line) for line in grid.about.notes]
    lines += [("not stated", line) for line in grid.base.about.not_stated]
    lines += [("not here", line) for line in grid.about.missing]
    lines.append(("cost", grid.about.cost or "nobody has run it yet"))
    for title, line in lines:
        _say(console, f"{title}: {line}")


def _data(previews: Mapping[str, Preview]) -> str:
    return "; ".join(sorted({what(preview) for preview in previews.values()}))


def _cells(told: Mapping[str, Any], published: bool) -> list[str]:
    spread = f" ± {told['deviation']:.2f}" if told["deviation"] is not None else ""
    cells = ["" if told["mean"] is None else f"{told['mean']:.2f}{spread}"]
    if published:
        difference = told["difference"]
        cells += [_figure(told["published"]), "" if difference is None else f"{difference:+.2f}"]
    return cells


def _is_published(entries: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(entry["metrics"][name]["published"] is not None for entry in entries)


def _is_told(entries: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(entry["metrics"][name][part] is not None for entry in entries for part in ("mean", "published"))


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
