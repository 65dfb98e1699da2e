"""The table of a sweep: for every row the mean over seeds, its spread, and the published value beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from foveal.analysis.metrics import CLASSIFICATION, Metric


def grid_table(
    records: Sequence[Mapping[str, Any]],
    published: Mapping[str, Mapping[str, float]],
    known: Mapping[str, Metric] = CLASSIFICATION,
) -> list[dict[str, Any]]:
    """One entry a row, in the order of ``published``.

    Args:
        records: of runs, with ``row``, ``seed``, ``status`` and metrics, or the ``reason`` of a failure.
        published: figures of each row by metric.
        known: what the task measures; the first one has a column even where no run is done.

    Returns:
        For each row: ``runs`` that are done, ``parameters``, ``seconds`` of training in the mean, ``failures`` as seed
        and reason, and for each metric ``values`` by seed, ``mean``, ``deviation`` over seeds (None for one),
        ``published`` and ``difference`` (ours less the published one). Shares are in per cent.
    """
    first = next(iter(known))
    metrics = dict.fromkeys([first, *(name for told in published.values() for name in told)])
    for name in known:
        if name != "loss" and any(name in record for record in records):
            metrics.setdefault(name)
    table = []
    for row, told in published.items():
        own = [record for record in records if record["row"] == row]
        done = [record for record in own if record["status"] == "done"]
        seconds = [record["train_seconds"] for record in done if "train_seconds" in record]
        table.append(
            {
                "row": row,
                "runs": len(done),
                "parameters": next((record["parameters"] for record in done if "parameters" in record), None),
                "seconds": fmean(seconds) if seconds else None,
                "failures": [
                    {"seed": record["seed"], "reason": record["reason"]} for record in own if record not in done
                ],
                "metrics": {name: _metric(name, done, told.get(name), known) for name in metrics},
            }
        )
    return table


def as_csv(table: Sequence[Mapping[str, Any]]) -> str:
    """The table with one line a row and four columns a metric."""
    metrics = list(table[0]["metrics"]) if table else []
    parts = ("mean", "deviation", "published", "difference")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["row", "runs", "failed", "parameters", "seconds", *(f"{name}_{part}" for name in metrics for part in parts)]
    )
    for entry in table:
        cells = [entry["row"], entry["runs"], len(entry["failures"]), entry["parameters"], entry["seconds"]]
        cells += [entry["metrics"][name][part] for name in metrics for part in parts]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue()


def _metric(
    name: str, done: Sequence[Mapping[str, Any]], published: float | None, known: Mapping[str, Metric]
) -> dict[str, Any]:
    # Runs record shares, papers print per cent.
    factor = 100.0 if name in known and known[name].percent else 1.0
    values = {str(record["seed"]): factor * float(record[name]) for record in done if name in record}
    mean = fmean(values.values()) if values else None
    return {
        "values": values,
        "mean": mean,
        "deviation": stdev(values.values()) if len(values) > 1 else None,
        "published": published,
        "difference": mean - published if mean is not None and published is not None else None,
    }
