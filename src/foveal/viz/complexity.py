"""Figure 3 of efficient attention as an SVG file: memory and operations of both modules by size, in decades."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from math import ceil, floor, log10

from foveal.analysis.ledger.efficient import Bars
from foveal.viz.palette import MECHANISMS
from foveal.viz.scale import Axis, short, tick

WIDTH, HEIGHT = 960, 400
LEFT, PANEL, GAP = 64, 400, 72
TOP, BOTTOM = 84, 340
BAR, SPACE = 29, 4
_NAMES = {"efficient": "efficient attention", "nonlocal": "non-local module"}


def figure_3(bars: Sequence[Bars]) -> str:
    """A stand-alone SVG: a pair of bars a size, one panel for memory, one for operations."""
    told = "formulas of the paper's table 1 with d = dv = 2 dk = 64 in float32; logarithmic axes"
    parts = [
        _text(LEFT, 26, "What attention needs by the size of the map", size=16, weight="600"),
        _text(LEFT, 46, told, fill="#555"),
        _legend(WIDTH - 330, 22),
        _panel(LEFT, "Memory, bytes", "B", bars, lambda b: (b.efficient_bytes, b.non_local_bytes)),
        _panel(LEFT + PANEL + GAP, "Operations, two a multiply-accumulate", "", bars,
               lambda b: (b.efficient_operations, b.non_local_operations)),
    ]  # fmt: skip
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="Memory and operations of efficient attention and of the non-local module" '
        f'font-family="system-ui, sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(parts)}</svg>\n"
    )


def _panel(
    left: float, title: str, unit: str, bars: Sequence[Bars], read: Callable[[Bars], tuple[float, float]]
) -> str:
    values = [value for bar in bars for value in read(bar)]
    # Whole decades, with room for the figure above the highest bar.
    axis = Axis(10.0 ** floor(log10(min(values) / 2)), 10.0 ** ceil(log10(max(values) * 1.5)), BOTTOM, TOP, True)
    parts = [_text(left, TOP - 14, title, weight="600"), _grid(axis, left, unit)]
    step = PANEL / len(bars)
    for place, bar in enumerate(bars):
        middle = left + step * (place + 0.5)
        first, second = read(bar)
        parts.append(_bar(middle - BAR - SPACE / 2, first, axis, "efficient", unit, bar.space))
        parts.append(_bar(middle + SPACE / 2, second, axis, "nonlocal", unit, bar.space))
        parts.append(_text(middle, BOTTOM + 18, _size(bar.space), anchor="middle"))
        parts.append(_text(middle, BOTTOM + 35, _times(second / first), anchor="middle", fill="#555", size=11))
    parts.append(_line(left, BOTTOM, left + PANEL, BOTTOM, "#333"))
    parts.append(_text(left - 7, BOTTOM + 36, "ratio", anchor="end", fill="#555", size=11))
    return "".join(parts)


def _grid(axis: Axis, left: float, unit: str) -> str:
    decades = [10.0**power for power in range(round(log10(axis.low)), round(log10(axis.high)) + 1)]
    return "".join(
        _line(left, axis.at(value), left + PANEL, axis.at(value), "#e4e4e4")
        + _text(left - 7, axis.at(value) + 4, _spaced(tick(value), unit), anchor="end", fill="#555", size=11)
        for value in decades
    )


def _bar(x: float, value: float, axis: Axis, mechanism: str, unit: str, space: Sequence[int]) -> str:
    top = axis.at(value)
    told = f"{_NAMES[mechanism]}, {_size(space)}: {_spaced(short(value), unit)}"
    return (
        f'<rect x="{x:.1f}" y="{top:.1f}" width="{BAR}" height="{BOTTOM - top:.1f}" '
        f'fill="{MECHANISMS[mechanism].light}"><title>{escape(told)}</title></rect>'
        + _text(x + BAR / 2, top - 4, short(value), anchor="middle", size=10)
    )


def _legend(x: float, y: float) -> str:
    parts = []
    for place, (mechanism, name) in enumerate(_NAMES.items()):
        at = x + 160 * place
        parts.append(f'<rect x="{at}" y="{y - 9}" width="12" height="12" fill="{MECHANISMS[mechanism].light}"/>')
        parts.append(_text(at + 18, y + 1, name))
    return "".join(parts)


def _times(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"


def _spaced(text: str, unit: str) -> str:
    return f"{text[:-1]} {text[-1]}{unit}" if text[-1].isalpha() else f"{text} {unit}".rstrip()


def _size(space: Sequence[int]) -> str:
    return "×".join(map(str, space))  # noqa: RUF001


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", fill: str = "#222", size: int = 12, weight: str = "400"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}" font-size="{size}" '
        f'font-weight="{weight}" paint-order="stroke" stroke="#fff" stroke-width="3">{escape(text)}</text>'
    )
