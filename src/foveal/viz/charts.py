"""Charts of a comparison as inline SVG, from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from foveal.analysis.comparison import BASELINE, Comparison, Row
from foveal.viz.scale import Axis, cost_axis, place_labels, short, tick

WIDTH, HEIGHT = 380, 290
LEFT, RIGHT, TOP, BOTTOM = 46, 366, 12, 246
LETTER, LINE = 7.4, 14


def accuracy_axis(rows: Sequence[Row], start: float, end: float) -> Axis:
    """In per cent, around every seed of every mechanism, never above 100."""
    values = [100 * value for row in rows for value in row.accuracies]
    room = max(0.1 * (max(values) - min(values)), 0.25)
    return Axis(min(values) - room, min(max(values) + room, 100.4), start, end)


def strip(row: Row, axis: Axis, colour: str) -> str:
    """Each seed as a dot on the common axis, the mean as a bar."""
    middle = 11
    dots = "".join(
        f'<circle cx="{axis.at(100 * value):.1f}" cy="{middle}" r="4.5" style="fill:{colour}" fill-opacity=".75"/>'
        for value in row.accuracies
    )
    mean = axis.at(100 * (row.mean or 0.0))
    seeds = ", ".join(f"{100 * value:.1f} %" for value in row.accuracies)
    return (
        f'<svg class="strip" width="{axis.end + axis.start:.0f}" height="22" role="img" aria-label="{seeds}">'
        f'<line class="grid" x1="{axis.start:.0f}" x2="{axis.end:.0f}" y1="{middle}" y2="{middle}"/>{dots}'
        f'<line class="mean" x1="{mean:.1f}" x2="{mean:.1f}" y1="2" y2="20"/></svg>'
    )


def strip_scale(axis: Axis) -> str:
    """The ticks of the strips, for the head of their column."""
    marks = "".join(
        f'<line class="grid" x1="{axis.at(t):.1f}" x2="{axis.at(t):.1f}" y1="12" y2="16"/>'
        f'<text x="{axis.at(t):.1f}" y="9" text-anchor="middle">{tick(t)}</text>'
        for t in axis.ticks(2)
    )
    return f'<svg class="strip" width="{axis.end + axis.start:.0f}" height="16" aria-hidden="true">{marks}</svg>'


def accuracy_against(
    comparison: Comparison, key: str, title: str, unit: str, colours: Mapping[str, str], divisor: float = 1.0
) -> str:
    """Mean accuracy with the range over seeds, against one cost over ``divisor``; empty without records of it."""
    rows = [row for row in comparison.done if key in row.costs]
    if not rows:
        return ""
    costs = {row.mechanism: row.costs[key] / divisor for row in rows}
    x, y = cost_axis(list(costs.values()), LEFT, RIGHT), accuracy_axis(rows, BOTTOM, TOP)
    points = [(x.at(costs[row.mechanism]), y.at(100 * (row.mean or 0.0))) for row in rows]
    widths = [LETTER * len(row.mechanism) for row in rows]
    labels = place_labels(points, widths, LINE, (LEFT, TOP - 4, WIDTH, BOTTOM))
    parts = [_axes(x, y, unit), _baseline(comparison, costs, x, y)]
    parts += [_whisker(row, px, y, colours[row.mechanism]) for row, (px, _) in zip(rows, points, strict=True)]
    for row, (px, py), width, (left, middle, off) in zip(rows, points, widths, labels, strict=True):
        if off:
            near = min(max(px, left), left + width)
            parts.append(f'<line class="leader" x1="{px:.1f}" y1="{py:.1f}" x2="{near:.1f}" y2="{middle:.1f}"/>')
        anchor, at = _anchor(px, left, width)
        name = escape(row.mechanism)
        parts.append(f'<text class="label" x="{at:.1f}" y="{middle + 4:.1f}" text-anchor="{anchor}">{name}</text>')
    for row, (px, py) in zip(rows, points, strict=True):
        told = f"{row.mechanism}: {100 * (row.mean or 0):.1f} %, {short(costs[row.mechanism])} {unit}"
        parts.append(
            f'<circle class="dot" cx="{px:.1f}" cy="{py:.1f}" r="5.5" style="fill:{colours[row.mechanism]}">'
            f"<title>{escape(told)}</title></circle>"
        )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Accuracy against {escape(title.lower())}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _anchor(x: float, left: float, width: float) -> tuple[str, float]:
    """Hold a label at the end that faces its point, as the reader's font may be narrower than reckoned."""
    if left >= x:
        return "start", left
    if left + width <= x:
        return "end", left + width
    return "middle", left + width / 2


def _axes(x: Axis, y: Axis, unit: str) -> str:
    rows = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y.at(t):.1f}" y2="{y.at(t):.1f}"/>'
        f'<text class="tick" x="{LEFT - 7}" y="{y.at(t) + 4:.1f}" text-anchor="end">{t:g}</text>'
        for t in y.ticks(5)
        if t <= 100
    )
    columns = "".join(
        f'<line class="axis" x1="{x.at(t):.1f}" x2="{x.at(t):.1f}" y1="{BOTTOM}" y2="{BOTTOM + 4}"/>'
        f'<text class="tick" x="{x.at(t):.1f}" y="{BOTTOM + 18}" text-anchor="middle">{tick(t)}</text>'
        for t in x.ticks(4)
    )
    scale = ", logarithmic" if x.logarithmic else ""
    middle = (LEFT + RIGHT) / 2
    return (
        f'{rows}<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}"/>{columns}'
        f'<text class="unit" x="{middle}" y="{BOTTOM + 37}" text-anchor="middle">{escape(unit)}{scale}</text>'
    )


def _baseline(comparison: Comparison, costs: Mapping[str, float], x: Axis, y: Axis) -> str:
    row = comparison.row(BASELINE)
    if row is None or row.mechanism not in costs or row.mean is None:
        return ""
    px, py = x.at(costs[row.mechanism]), y.at(100 * row.mean)
    return (
        f'<line class="base" x1="{LEFT}" x2="{RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>'
        f'<line class="base" x1="{px:.1f}" x2="{px:.1f}" y1="{TOP}" y2="{BOTTOM}"/>'
    )


def _whisker(row: Row, x: float, y: Axis, colour: str) -> str:
    low, high = (y.at(100 * value) for value in (min(row.accuracies), max(row.accuracies)))
    return f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" style="stroke:{colour}"/>'
