"""The report of a sweep: one HTML file with published values beside the means, and accuracy by parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from foveal.analysis.comparison import Comparison, summarise
from foveal.viz.charts import accuracy_against, accuracy_axis, strip, strip_scale
from foveal.viz.page import definitions, page, references
from foveal.viz.palette import colours_of
from foveal.viz.scale import Axis, short

NONE = '<td class="none" data-v="-inf">&ndash;</td>'
TITLES = {"accuracy": "Top-1, %", "accuracy_top5": "Top-5, %", "accuracy_held_out": "Top-1 of another split, %"}


def sweep_page(results: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        results: what ``results.json`` of a sweep holds: ``grid``, ``about``, ``table``, ``records``, ``command``,
            ``environment``, and ``measures``: what each metric is called and whether it is in per cent.
    """
    records = results["records"]
    # Strips and the chart are of accuracies.
    told = [record for record in records if "accuracy" in record or record["status"] != "done"]
    comparison = summarise([{**record, "mechanism": record["row"]} for record in told])
    colours = colours_of(entry["row"] for entry in results["table"])
    names = references(colours)
    about = results["about"]
    title = f"{results['grid']}: {about['table']}" if about["table"] else str(results["grid"])
    parts = [_top(title, results), _table(results, comparison, names), _under(results["table"])]
    parts += [_notes(about), _chart(results["table"], comparison, names), _origin(results)]
    return page(title, "".join(parts), colours)


def _top(title: str, results: Mapping[str, Any]) -> str:
    records, about = results["records"], results["about"]
    failed = [record for record in records if record["status"] == "failed"]
    facts = {
        "Paper": about["paper"], "Figures from": about["source"], "Runs": len(records), "Failed": len(failed) or None,
    }  # fmt: skip
    lines = [f"{record['run']} failed: {record['reason']}" for record in failed]
    notice = f'<div class="notice">{"".join(f"<p>{escape(line)}</p>" for line in lines)}</div>' if lines else ""
    shown = definitions({name: fact for name, fact in facts.items() if fact}, "facts")
    return f'<header><p class="kind">foveal sweep</p><h1>{escape(title)}</h1>{shown}{notice}</header><h2>Results</h2>'


def _table(results: Mapping[str, Any], comparison: Comparison, colours: Mapping[str, str]) -> str:
    table, measures = results["table"], results.get("measures", {})
    axis = accuracy_axis(comparison.done, 8, 142) if comparison.done else None
    metrics = [name for name in (table[0]["metrics"] if table else ()) if _is_told(table, name)]
    heads = [_head("Row", "text"), _head("Runs"), _head("Parameters")]
    if axis is not None:
        heads.append(f'<th scope="col" class="dots"><span>each seed, %</span>{strip_scale(axis)}</th>')
    for name in metrics:
        title = TITLES.get(name) or _title(name, measures.get(name, {}))
        heads += [_head(title, sub="mean ± deviation"), _head("Published", sub=title), _head("Difference")]
    digits = {name: 2 if measures.get(name, {}).get("percent") else 4 for name in metrics}
    body = "".join(_row(entry, comparison, axis, digits, colours[entry["row"]]) for entry in table)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Results by row"><table id="results">'
        f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(
    entry: Mapping[str, Any], comparison: Comparison, axis: Axis | None, digits: Mapping[str, int], colour: str
) -> str:
    name = escape(entry["row"])
    count = entry["parameters"]
    cells = [
        f'<th scope="row" data-v="{name}"><i class="swatch" style="background:{colour}"></i>{name}</th>',
        f'<td data-v="{entry["runs"]}">{entry["runs"]}</td>'
        if entry["runs"]
        else '<td class="failed" data-v="0">0</td>',
        NONE if count is None else f'<td data-v="{count}">{short(count)}</td>',
    ]
    if axis is not None:
        found = comparison.row(entry["row"])
        cells.append(f'<td class="dots">{strip(found, axis, colour) if found else ""}</td>')
    for metric, count in digits.items():
        cells += _figures(entry["metrics"][metric], count)
    return f"<tr>{''.join(cells)}</tr>"


def _title(name: str, measure: Mapping[str, Any]) -> str:
    words = str(measure.get("words", name)).replace("_", " ")
    unit = "%" if measure.get("percent") else measure.get("unit", "")
    return (words[:1].upper() + words[1:]) + (f", {unit}" if unit else "")


def _figures(told: Mapping[str, Any], digits: int) -> list[str]:
    mean, published, difference = told["mean"], told["published"], told["difference"]
    spread = "" if told["deviation"] is None else f" <small>±&nbsp;{told['deviation']:.{digits}f}</small>"
    return [
        NONE if mean is None else f'<td data-v="{mean}">{mean:.{digits}f}{spread}</td>',
        NONE if published is None else f'<td data-v="{published}">{published:g}</td>',
        NONE if difference is None else f'<td data-v="{difference}">{difference:+.{digits}f}</td>',
    ]


def _is_told(table: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(entry["metrics"][name][part] is not None for entry in table for part in ("mean", "published"))


def _head(title: str, kind: str = "number", sub: str = "") -> str:
    second = f"<small>{escape(sub)}</small>" if sub else ""
    return f'<th scope="col" class="{kind}"><button type="button">{escape(title)}</button>{second}</th>'


def _under(table: Sequence[Mapping[str, Any]]) -> str:
    least = min((entry["runs"] for entry in table), default=0)
    seeds = "One seed a row: no spread is known." if least < 2 else f"The deviation is over {least} seeds or more."
    return (
        '<p class="soft under">Means over seeds of the last epoch, on images that were not trained on; parameters are '
        f"those that the run counted. {seeds} Click a heading to sort.</p>"
    )


def _notes(about: Mapping[str, Any]) -> str:
    lines = [*about["notes"], *(f"Not here: {line}" for line in about["missing"])]
    return f"<h2>To know</h2><ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def _chart(table: Sequence[Mapping[str, Any]], comparison: Comparison, colours: Mapping[str, str]) -> str:
    if len({entry["parameters"] for entry in table if entry["parameters"] is not None}) < 2:
        return ""
    drawn = accuracy_against(comparison, "parameters", "Accuracy against parameters", "parameters", colours)
    return f'<div class="charts">{drawn}</div>' if drawn else ""


def _origin(results: Mapping[str, Any]) -> str:
    told = {str(key): str(value) for key, value in results["environment"].items()}
    return (
        f"<h2>Environment of the table</h2>{definitions(told, 'list')}"
        f"<h2>Command</h2><pre>{escape(str(results['command']))}</pre>"
    )
