"""``foveal evaluate`` for every task but classification: metrics beside the run's own and the published ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveal.cli.said import check_folder, opened_models, print_written
from foveal.errors import OptionError

if TYPE_CHECKING:
    from foveal.cli.evaluate import Evaluate
    from foveal.tasks.kind import Kind, Opened
    from foveal.tasks.measure import Measured


def evaluate_task(given: Evaluate, task: str) -> int:
    """Measure a run of a task and print what was found."""
    from rich.console import Console

    from foveal.tasks.kinds import kind_named
    from foveal.tasks.measure import measure

    if given.data is not None or given.confusion is not None:
        raise OptionError(f"evaluate: --data and --confusion are of classification, not of {task}. Use --data.path.")
    check_folder("--results", given.results)
    kind = kind_named(task)
    if given.results is not None and not kind.writes_results:
        kind.write_results(None, Path(given.results))  # says before anything is measured that there is no such file
    opened = opened_models(given.source, given.which)
    if given.votes is not None:
        opened = replace(opened, recipe=kind.voted(opened.recipe, given.votes))
    with Console(stderr=True, quiet=given.json).status("measuring"):
        found = measure(
            opened, data_path=given.data_path, results=None if given.results is None else Path(given.results)
        )
    if given.json:
        print(json.dumps(as_json(opened, found), indent=1))
    else:
        print_measured(kind, opened, found)
    if given.results is not None:
        print_written(given.results, quiet=given.json)
    return 0


def as_json(opened: Opened, found: Measured) -> dict[str, Any]:
    """What the tables show."""
    return {
        "run": str(opened.source), "task": opened.recipe.task, "model": opened.name, "weights": opened.weights,
        "data": opened.recipe.data.name, **found.metrics, found.word: found.items, "seconds": round(found.seconds, 3),
        "classes": found.classes, "recorded": dict(opened.recorded), "published": dict(opened.recipe.about.published),
    }  # fmt: skip


def print_measured(kind: Kind, opened: Opened, found: Measured) -> None:
    """Metrics, then classes."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    told = f"{opened.name} ({opened.weights}) on {opened.recipe.data.name}"
    told += f": {found.items:,} {found.word}" if found.items else ""
    console.print(told, style="bold", markup=False)
    console.print(_metrics(kind, opened, found.metrics))
    if found.classes:
        console.print(_classes(found.classes))
    if found.items:
        console.print(f"{found.items / found.seconds:,.1f} {found.word} a second, reading included", markup=False)
    about = opened.recipe.about
    if about.published:
        console.print(f"published: {about.paper}, {about.table}", markup=False)


def _metrics(kind: Kind, opened: Opened, metrics: Mapping[str, float]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    published = opened.recipe.about.published
    table = Table(box=SIMPLE_HEAD)
    table.add_column("")
    for head in ("now", *(["in the run"] if opened.recorded else []), *(["published"] if published else [])):
        table.add_column(head, justify="right")
    for name in (*(known for known in kind.metrics if known in metrics), *(set(metrics) - set(kind.metrics))):
        metric = kind.metric(name)
        cells = [metric.text(metrics[name])]
        if opened.recorded:
            cells.append(metric.text(opened.recorded[name]) if name in opened.recorded else "")
        if published:
            cells.append(metric.printed(published[name]) if name in published else "")
        table.add_row(metric.words, *cells)
    return table


def _classes(rows: Sequence[Mapping[str, Any]]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for number, head in enumerate(rows[0]):
        table.add_column(head.replace("_", " "), justify="right" if number else "left")
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
