"""What ``foveal train RECIPE --plan`` prints."""

from __future__ import annotations

import json
import math
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from foveal.analysis.metrics import Metric
from foveal.tasks.kinds import kind_of
from foveal.tasks.plain import as_plain
from foveal.tasks.preview import Preview
from foveal.tasks.recipe_files import recipe_text


def print_plan(preview: Preview, *, as_json: bool) -> None:
    """The recipe whole, what it comes to, and where it comes from."""
    if as_json:
        print(json.dumps(as_record(preview), indent=1))
        return
    console, recipe = Console(), preview.recipe
    console.print(recipe_text(recipe), highlight=False, markup=False, soft_wrap=True, end="\n")
    counted = "" if preview.counted else ", as its authors count them"
    steps = preview.steps_per_epoch
    for line in (
        f"{what(preview)}{counted}",
        f"{steps:,} steps an epoch, {steps * recipe.epochs:,} in all, of {recipe.batch_size} {preview.word} each",
        f"{preview.parameters:,} parameters of {recipe.model.name}",
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("after epoch", justify="right")
    table.add_column("step", justify="right")
    table.add_column("rate", justify="right")
    for epoch, rate in preview.rates:
        before = not epoch.is_integer() and math.nextafter(epoch, math.inf).is_integer()
        told = f"before {math.nextafter(epoch, math.inf):g}" if before else f"{epoch:g}"
        table.add_row(told, f"{epoch * steps:,.0f}", f"{rate:.3e}")
    console.print(table)
    _print_sources(console, preview)


def _print_sources(console: Console, preview: Preview) -> None:
    about = preview.recipe.about
    metrics = kind_of(preview.recipe).metrics
    published = ", ".join(f"{name} {_printed(metrics.get(name), value)}" for name, value in about.published.items())
    lines = [
        ("paper", about.paper), ("table", about.table), ("published", published),
        *(("not stated", line) for line in about.not_stated), ("cost", about.cost or "nobody has run it yet"),
    ]  # fmt: skip
    for title, line in lines:
        if line:
            console.print(f"{title}: {line}", highlight=False, markup=False, soft_wrap=True)


def what(preview: Preview) -> str:
    """The training data in a line."""
    classes = f" of {preview.classes} classes" if preview.classes else ""
    size = f" at {preview.size} pixels" if preview.size else ""
    return f"{preview.items:,} training {preview.word}{classes}{size}"


def _printed(metric: Metric | None, value: float) -> str:
    return f"{value:g}" if metric is None else metric.printed(value)


def as_record(preview: Preview) -> dict[str, Any]:
    """Plain values for JSON."""
    return {
        "recipe": as_plain(preview.recipe),
        f"training_{preview.word}": preview.items,
        "counted": preview.counted,
        "classes": preview.classes,
        "size": preview.size,
        "steps_per_epoch": preview.steps_per_epoch,
        "steps": preview.steps_per_epoch * preview.recipe.epochs,
        "parameters": preview.parameters,
        "rates": [{"epoch": epoch, "rate": rate} for epoch, rate in preview.rates],
    }
