"""The table of a comparison as HTML: one row a mechanism, every figure with the number it is sorted by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape

from foveal.analysis.comparison import Comparison, Row
from foveal.viz.charts import accuracy_axis, strip, strip_scale
from foveal.viz.scale import plain, short

_DASH = '<td class="none" data-v="inf">&ndash;</td>'


def table(comparison: Comparison, colours: Mapping[str, str]) -> str:
    """Rows in the order of the run; a script of the page sorts them, without it they stay readable."""
    if not comparison.done:
        return ""
    axis = accuracy_axis(comparison.done, 8, 142)
    times = f"\N{MULTIPLICATION SIGN} {comparison.rows[0].mechanism} (quartiles)"
    heads = [
        _head("Mechanism", "text"),
        _head("Accuracy", sub="mean ± deviation"),
        f'<th scope="col" class="dots"><span>each seed, %</span>{strip_scale(axis)}</th>',
        _head("Parameters"),
        _head("MACs", sub="one image"),
        _head("Inference", sub=times),
        _head("Training step", sub=times),
        _head("Memory", sub="inference"),
        _head("Memory", sub="training step"),
        _head("Sites"),
    ]
    best = max(comparison.done, key=lambda row: row.mean or 0.0)
    body = []
    for row in comparison.rows:
        cells = _cells(row, colours[row.mechanism], row is best)
        dots = strip(row, axis, colours[row.mechanism]) if row.accuracies else ""
        body.append(f'<tr>{cells[0]}{cells[1]}<td class="dots">{dots}</td>{"".join(cells[2:])}</tr>')
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Results by mechanism"><table id="results">'
        f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _head(title: str, kind: str = "number", sub: str = "") -> str:
    second = f"<small>{escape(sub)}</small>" if sub else ""
    return f'<th scope="col" class="{kind}"><button type="button">{escape(title)}</button>{second}</th>'


def _cells(row: Row, colour: str, best: bool) -> list[str]:
    name = (
        f'<th scope="row" data-v="{escape(row.mechanism)}"><i class="swatch" style="background:{colour}"></i>'
        f"{escape(row.mechanism)}</th>"
    )
    costs = row.costs
    return [
        name,
        _accuracy(row, best),
        _number(costs.get("parameters"), short),
        _number(costs.get("macs"), short),
        _time(costs, "inference_ms"),
        _time(costs, "training_ms"),
        _number(costs.get("inference_peak_bytes"), mebibytes),
        _number(costs.get("training_peak_bytes"), mebibytes),
        f'<td data-v="{len(row.sites)}">{len(row.sites) or "&ndash;"}</td>',
    ]


def _accuracy(row: Row, best: bool) -> str:
    if row.mean is None:
        return '<td class="failed" data-v="-inf">failed</td>'
    spread = f" <small>±&nbsp;{100 * row.deviation:.1f}</small>" if row.deviation is not None else ""
    figure = f"{100 * row.mean:.1f}&nbsp;%"
    return f'<td data-v="{row.mean}">{f"<b>{figure}</b>" if best else figure}{spread}</td>'


def _number(value: float | None, form: Callable[[float], str]) -> str:
    return _DASH if value is None else f'<td data-v="{value}">{form(value)}</td>'


def _time(costs: Mapping[str, float], key: str) -> str:
    ratio = costs.get(f"{key}.ratio")
    if ratio is None:
        return _DASH
    low, high, took = (costs.get(f"{key}.{part}") for part in ("ratio_q1", "ratio_q3", "median"))
    title = f' title="{plain(took)} ms"' if took is not None else ""
    quartiles = (
        f" <small>({low:.2f}&ndash;{high:.2f})</small>" if low is not None and high is not None and low < high else ""
    )
    return f'<td data-v="{ratio}"{title}>{ratio:.2f}{quartiles}</td>'


def mebibytes(value: float) -> str:
    """Bytes as MiB."""
    return f"{plain(value / 2**20)}&nbsp;MiB"
