"""The report of a comparison: one HTML file that opens anywhere, offline."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from foveal.analysis.comparison import Comparison, Row, headline, join, percent, summarise
from foveal.errors import DataError
from foveal.viz.charts import accuracy_against
from foveal.viz.gallery import gallery, legend
from foveal.viz.page import definitions, page, references
from foveal.viz.palette import colours_of
from foveal.viz.provenance import method, origin, words
from foveal.viz.table import table

SCHEMA = 1
ENOUGH = 0.95

_CHARTS = (
    ("macs", "MACs of one image", "multiply-accumulates", 1),
    ("parameters", "Parameters", "parameters", 1),
    ("inference_ms.median", "Inference time", "ms a batch", 1),
    ("training_ms.median", "Training time", "ms a step", 1),
    ("inference_peak_bytes", "Memory of inference", "MiB at the peak", 2**20),
    ("training_peak_bytes", "Memory of a training step", "MiB at the peak", 2**20),
)


def write_report(results: Mapping[str, Any], looks: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> Path:
    """Write the report; the file appears whole or not at all.

    Args:
        results: what ``results.json`` holds: ``schema``, ``config``, ``environment``, ``command``, ``records``.
        looks: a sample image each: ``image`` in 0 to 1, ``label``, ``point`` as (row, column) in pixels, and ``maps``
            by mechanism with ``attention`` (None where there is no map), ``evidence``, ``predicted`` and ``where``.
        path: the file to write.

    Raises:
        DataError: the results have another schema or no records.
    """
    if results.get("schema") != SCHEMA or not results.get("records"):
        raise DataError(
            f"write_report: results must have schema {SCHEMA} and records, got schema {results.get('schema')!r} "
            f"and {len(results.get('records') or ())} records. Run the comparison again."
        )
    target = Path(path)
    unfinished = target.with_name(target.name + ".part")
    unfinished.write_text(_document(results, looks), encoding="utf-8")
    unfinished.replace(target)
    return target


def _document(results: Mapping[str, Any], looks: Sequence[Mapping[str, Any]]) -> str:
    comparison = summarise(results["records"])
    colours = colours_of(row.mechanism for row in comparison.rows)
    names = references(colours)
    config = dict(results.get("config") or {})
    title = f"Which attention is worth it on {Path(str(config.get('data', 'these images'))).name}?"
    data = dict(results.get("data") or {})
    parts = [_top(title, comparison, config, data), table(comparison, names), _under_table(comparison, data)]
    parts += [_charts(comparison, names), _looks(looks, names), method(comparison), origin(results, comparison)]
    return page(title, "".join(parts), colours)


def _top(title: str, comparison: Comparison, config: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    facts = {
        "Data": config.get("data"),
        "Images": f"{data['train']} to train on, {data['val']} held out" if {"train", "val"} <= data.keys() else None,
        "Unreadable, skipped": len(data.get("skipped") or ()) or None,
        "Backbone": config.get("backbone"),
        "Epochs": config.get("epochs"),
        "Seeds": config.get("seeds"),
        "Mechanisms": len(comparison.rows),
    }
    shown = {name: words(value) for name, value in facts.items() if value is not None}
    return (
        f'<header><p class="kind">foveal compare</p><h1>{escape(title)}</h1>'
        f'<p class="finding">{escape(headline(comparison))}</p>{definitions(shown, "facts")}{_notice(comparison)}'
        "</header><h2>Results</h2>"
    )


def _notice(comparison: Comparison) -> str:
    """What a reader must not miss: what fell short and what failed."""
    low = [row for row in comparison.done if (row.mean or 0.0) < ENOUGH]
    lines = []
    if low:
        listed = join([f"{row.mechanism} ({percent(row.mean or 0.0)}{_learning(row)})" for row in low])
        lines.append(f"Below {percent(ENOUGH, 0)} mean accuracy: {listed}.")
    for row in comparison.rows:
        lines += [f"{row.mechanism}, seed {seed}, failed: {reason}" for seed, reason in row.failures]
    if not lines:
        return ""
    return f'<div class="notice">{"".join(f"<p>{escape(line)}</p>" for line in lines)}</div>'


def _learning(row: Row) -> str:
    """Whether more epochs may help, as far as the best epoch tells."""
    if row.best is None or row.mean is None:
        return ""
    return ", best in its last epoch" if row.best <= row.mean else f", {percent(row.best)} in its best epoch"


def _under_table(comparison: Comparison, data: Mapping[str, Any]) -> str:
    if comparison.deviation is None or comparison.margin is None:
        return '<p class="soft under">One seed a mechanism: no spread is known.</p>'
    return (
        f'<p class="soft under">Two runs of one mechanism differ by a standard deviation of '
        f"{100 * comparison.deviation:.2f} points (pooled over all mechanisms). Two means are called different where "
        f"they are more than {100 * comparison.margin:.1f} points apart: a t\N{NON-BREAKING HYPHEN}test at 1 % for a "
        f"pair, on these images.{_grain(data)} Click a heading to sort.</p>"
    )


def _grain(data: Mapping[str, Any]) -> str:
    return f" One held-out image is {100 / data['val']:.2f} points." if data.get("val") else ""


def _charts(comparison: Comparison, names: Mapping[str, str]) -> str:
    drawn = "".join(
        accuracy_against(comparison, key, title, unit, names, divisor) for key, title, unit, divisor in _CHARTS
    )
    if not drawn:
        return ""
    return (
        "<h2>Accuracy against cost</h2><p class='soft'>Mean accuracy in per cent; the bar spans the seeds, dashed "
        "lines pass through the backbone without attention. Up and to the left is better.</p>"
        f'<div class="charts">{drawn}</div>'
    )


def _looks(looks: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    if not looks:
        return ""
    return (
        "<h2>Where each one looks</h2><p class='soft'>Left of a pair: the attention that the marked point pays to "
        "every position, mean over heads. Right: the evidence for the predicted class (Grad-CAM). Each square is one "
        "position of the layer's map; every map runs from 0 to its own largest value. “Peak 3.0 times even” says that "
        f"the largest weight is three times that of an even spread.</p>{legend()}{gallery(looks, names)}"
    )
