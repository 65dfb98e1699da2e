"""Cost against size, both logarithmic: a straight line's slope is its exponent, beside lines of exponent 1 and 2."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from foveal.analysis.cost import Growth, Step
from foveal.viz.canvas import SOFT, Canvas, Dot, Line, Words
from foveal.viz.palette import colours_of
from foveal.viz.scale import Axis, tick

WIDTH, HEIGHT, PANEL = 860, 404, 410
LEFT, RIGHT, TOP, BOTTOM = 66, 396, 90, 340
MIB = 2.0**20


def draw_growth(grown: Growth, path: str | os.PathLike[str]) -> Path:
    """Draw multiply-accumulates and memory at each size, as .svg or .png."""
    canvas = Canvas(WIDTH, HEIGHT)
    canvas.add(Words((24, 26), f"{grown.name}: cost against the number of positions n", size=16))
    work = "MACs, forward and backward" if grown.train else "MACs, forward"
    memory = "MiB saved for backward" if grown.train else "MiB of activations, highest"
    _panel(canvas, 0, work, grown, lambda step: float(step.macs), grown.macs_exponent)
    _panel(canvas, PANEL + 14, memory, grown, lambda step: step.memory / MIB, grown.memory_exponent)
    return canvas.write(path)


def _panel(
    canvas: Canvas, left: float, title: str, grown: Growth, value: Callable[[Step], float], exponent: float | None
) -> None:
    told = "nothing to draw, it is zero at a size" if exponent is None else f"exponent {exponent:.2f}"
    canvas.add(Words((left + 24, 54), f"{title}: {told}", size=13, colour=SOFT))
    if exponent is None:
        return
    costs = [value(step) for step in grown.steps]
    x = _logarithmic([step.positions for step in grown.steps], left + LEFT, left + RIGHT)
    y = _logarithmic(costs, BOTTOM, TOP)
    _grid(canvas, x, y, grown.steps)
    _guides(canvas, x, y, grown.steps[0].positions, costs[0])
    mechanism = _mechanism(grown.name)
    colour = colours_of([mechanism])[mechanism].light
    points = [(x.at(step.positions), y.at(cost)) for step, cost in zip(grown.steps, costs, strict=True)]
    canvas.add(Line(points, colour, 2.0), *(Dot(point, 4.5, colour) for point in points))


def _mechanism(name: str) -> str:
    """As the palette calls it."""
    return {"non_local": "nonlocal"}.get(name, name)


def _logarithmic(values: Sequence[float], start: float, end: float) -> Axis:
    low, high = min(values), max(values)
    room = max((high / low) ** 0.06, 1.15)
    return Axis(low / room, high * room, start, end, logarithmic=True)


def _grid(canvas: Canvas, x: Axis, y: Axis, steps: Sequence[Step]) -> None:
    for value in y.ticks(5):
        canvas.add(Line([(x.start, y.at(value)), (x.end, y.at(value))]))
        canvas.add(Words((x.start - 7, y.at(value)), tick(value), "end", 11, SOFT))
    canvas.add(Line([(x.start, BOTTOM), (x.end, BOTTOM)], SOFT))
    for step in steps:
        at = x.at(step.positions)
        canvas.add(Line([(at, BOTTOM), (at, BOTTOM + 5)], SOFT))
        canvas.add(Words((at, BOTTOM + 16), "x".join(map(str, step.size)), "middle", 11, SOFT))
    canvas.add(Words(((x.start + x.end) / 2, BOTTOM + 42), "size, logarithmic in n", "middle", 12, SOFT))


def _guides(canvas: Canvas, x: Axis, y: Axis, first: float, least: float) -> None:
    """Lines of exponent 1 and 2 from the first point, as far as they stay inside."""
    for exponent, label in ((1, "n"), (2, "n^2")):
        last = min(x.high, first * (y.high / least) ** (1 / exponent))
        end = (x.at(last), y.at(least * (last / first) ** exponent))
        canvas.add(Line([(x.at(first), y.at(least)), end], SOFT, 1.0, dashed=True))
        inside = end[0] > x.end - 1
        canvas.add(Words((end[0] + (4 if inside else 0), end[1] - (0 if inside else 9)), label, size=11, colour=SOFT))
