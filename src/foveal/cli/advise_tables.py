"""What ``foveal advise`` prints: candidates, crossovers, the check of the predictions, and one sentence on each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foveal.analysis.budgets import QUANTITIES
from foveal.cli.units import count, digits, fed, memory

if TYPE_CHECKING:
    from rich.table import Table

    from foveal.analysis.advice import Advice, Candidate, Costs
    from foveal.analysis.calibration import Calibration
    from foveal.analysis.crossover import Crossover
    from foveal.analysis.prediction_check import Checked

_WARM = "Speeds are of warm caches, so what a mechanism adds inside a model is predicted too low."
_LEVELS = ("model", "stage", "site")


def print_advice(advice: Advice, each: str) -> None:
    """The model, a row a candidate, and what the table says in a sentence."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(f"{advice.model}: {fed(advice.inputs)}; mechanisms {advice.place}", markup=False)
    if advice.assumed:
        console.print(f"Assumed: {'; '.join(advice.assumed)}.", markup=False)
    shown = [c for c in advice.candidates if _LEVELS.index(c.level) <= _LEVELS.index(each)]
    table = _table("mechanism", "where", right=_headings(advice))
    table.add_row("none", "", *_figures(advice.own, advice), "")
    for candidate in shown:
        table.add_row(
            candidate.mechanism, candidate.where, *_figures(candidate.costs, advice), _verdict(candidate, advice)
        )
    console.print(table)
    for line in (*_notes(advice, len(advice.candidates) - len(shown)), summary(advice)):
        console.print(line, markup=False)


def _headings(advice: Advice) -> list[str]:
    times = ["ms,\npredicted"] if advice.own.latency is not None else []
    return [*times, "MACs", "highest\nmemory", "parameters", "fits" if advice.budgets else ""]


def _figures(costs: Costs, advice: Advice) -> list[str]:
    """Whole numbers for the model itself and where a budget asks for them, what is added for all else."""
    units = {"latency": digits, "macs": count, "memory": lambda size: memory(int(size)), "params": count}
    asked = {advice.ranked_by, *(budget.quantity for budget in advice.budgets)}
    cells = []
    for quantity in QUANTITIES:
        value, own = costs.of(quantity), advice.own.of(quantity)
        whole = units[quantity](value) if quantity in asked or costs is advice.own else ""
        added = "" if costs is advice.own else _percent(value / own - 1) if value != own and own else "+0%"
        cells.append(f"{whole} {added}".strip())
    return cells if costs.latency is not None else cells[1:]


def _percent(share: float) -> str:
    return f"{100 * share:+.0f}%" if abs(share) >= 0.095 else f"{100 * share:+.1f}%"


def _verdict(candidate: Candidate, advice: Advice) -> str:
    if not advice.budgets:
        return ""
    return (
        "yes" if candidate.fits else ", ".join(f"{name} {_percent(share)}" for name, share in candidate.exceeds.items())
    )


def _notes(advice: Advice, hidden: int) -> list[str]:
    lines = [f"{name} is left out: {_short(reason)}." for name, reason in advice.left_out.items()]
    if hidden:
        lines.append(f"{hidden} more, in smaller parts of these places: --each site shows them, --json has all.")
    if advice.budgets:
        lines.append(
            "What does not fit is told with how far it is above the limit. A plus in the table is what is added."
        )
    if any(budget.quantity == "latency" for budget in advice.budgets):
        lines.append(f"{_WARM} --check measures it.")
    if advice.taken_for_others:
        told = ", ".join(advice.taken_for_others)
        lines.append(f"Never measured, so predicted as products or element by element: {told}.")
    if advice.uncounted:
        lines.append(f"Ran without a formula, so MACs miss them: {', '.join(advice.uncounted)}.")
    return lines


def _short(reason: str) -> str:
    return reason if len(reason) <= 200 else f"{reason[:197].rstrip()}..."


def summary(advice: Advice) -> str:
    """One sentence: how many fit, the cheapest, and the most that fits at a paper's whole place."""
    fitting = [c for c in advice.candidates if c.fits]
    total = len(advice.candidates)
    limits = " and ".join(budget.text for budget in advice.budgets)
    within = f"within {limits}" if limits else "with no budget"
    if not fitting:
        nearest = min(advice.candidates, key=lambda c: max(c.exceeds.values()))
        return (
            f"None of {total} candidates fits {within}; nearest is {nearest.mechanism} at {nearest.where}, "
            f"{_verdict(nearest, advice)} above."
        )
    whole = [c.mechanism for c in fitting if c.level == "model"]
    places = f"; at their whole place: {', '.join(whole)}" if whole else "; none at its whole place"
    first = fitting[0]
    least = f"least {advice.ranked_by} with {first.mechanism} at {first.where}"
    return f"{len(fitting)} of {total} candidates fit {within}, {least}{places}."


def print_crossovers(rows: Sequence[Crossover], *, calibrated: bool) -> None:
    """From which map on one side of each pair costs less."""
    from rich.console import Console

    console = Console(highlight=False)
    if not rows:
        return
    table = _table("costs less", "than", right=["channels", "by MACs", *(["by predicted\ntime"] if calibrated else [])])
    for row in rows:
        cells = [_start(row.by_macs), *([_start(row.by_time)] if calibrated else [])]
        table.add_row(row.mechanism, row.against, str(row.channels), *cells)
    console.print("From which map on, up to 512 x 512:")
    console.print(table)


def _start(side: int | None) -> str:
    return "never" if side is None else "every map" if side == 1 else f"{side} x {side}"


def print_check(rows: Sequence[Checked]) -> None:
    """Predicted beside measured, a row a mechanism, and the median errors."""
    from statistics import median

    from rich.console import Console

    from foveal.analysis.calibration_layers import mechanisms_not_measured
    from foveal.analysis.prediction_check import by_group, median_error

    console = Console(highlight=False)
    layers, models = ([row for row in rows if row.kind == kind] for kind in ("layer", "model"))
    new = set(mechanisms_not_measured())
    table = _table("layer", right=["sizes", "median\nerror", "worst"])
    for group, inside in by_group(layers).items():
        worst = max(inside, key=lambda row: abs(row.error))
        name = f"{group} (not measured)" if group in new else group
        table.add_row(
            name, str(len(inside)), f"{100 * median(abs(r.error) for r in inside):.0f}%", _percent(worst.error)
        )
    console.print(table)
    if models:
        table = _table(
            "model", right=["ms,\npredicted", "ms,\nmeasured", "error", "added,\npredicted", "added,\nmeasured"]
        )
        first = models[0]
        for row in models:
            added = [row.predicted / first.predicted - 1, row.measured / first.measured - 1]
            shares = ["", ""] if row is first else [_percent(share) for share in added]
            table.add_row(row.name, digits(row.predicted), digits(row.measured), _percent(row.error), *shares)
        console.print(table)
    told = f"Median error {100 * median_error(layers):.0f}% on {len(layers)} layers of other sizes than calibrated on"
    if new_rows := [row for row in layers if row.group in new]:
        told += f", {100 * median_error(new_rows):.0f}% on the {len(new_rows)} of other kinds"
    if models:
        told += f"; {100 * median_error(models):.0f}% on {len(models)} model{'s' if len(models) > 1 else ''}"
    console.print(f"{told}.", markup=False)
    if models:
        console.print(_WARM)
    if busy() is not None:
        console.print(f"The machine is busy (load {busy():.1f} on {os.cpu_count()} cores); the fastest runs count.")


def busy() -> float | None:
    """The load of the last minute where it is above the cores, which makes measurements worse."""
    if not hasattr(os, "getloadavg"):
        return None
    load = os.getloadavg()[0]
    return load if load > (os.cpu_count() or 1) else None


def print_calibration(calibration: Calibration | None, path: Path, trouble: str | None) -> None:
    """Where the speeds come from, or what to do for some."""
    if calibration is None:
        print(trouble or "No time is predicted: the speeds of this machine were not measured. Add --calibrate.")
        return
    place = calibration.place
    print(
        f"Speeds of {place.processor}, threads {place.threads}, torch {place.torch}, from {calibration.layers} layers"
    )
    print(f"(median error on these {100 * calibration.fit_error:.0f}%): {path}")


def _table(*left: str, right: Sequence[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in left:
        table.add_column(heading, no_wrap=heading == "mechanism", overflow="fold")
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
