"""Time against the floor of the machine: one point a side; the diagonal is the floor, above it lies what is lost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from foveal.analysis.bench import Bench, Measured
from foveal.errors import DataError
from foveal.viz.canvas import SOFT, Canvas, Dot, Line, Words, label_points
from foveal.viz.palette import MECHANISMS, colours_of
from foveal.viz.scale import Axis

WIDTH, HEIGHT = 680, 530
LEFT, RIGHT, TOP, BOTTOM = 74, 610, 98, 448


def draw_roofline(result: Bench, path: str | os.PathLike[str]) -> Path:
    """Draw the forward time of every side that was measured, as .svg or .png.

    Raises:
        DataError: none was.
    """
    shown = [side for side in result.sides if side.forward_ms is not None and side.floor_ms]
    if not shown:
        raise DataError("plot: no side was measured, so there is nothing to draw.")
    floors, times = [side.floor_ms or 0.0 for side in shown], [_time(side) for side in shown]
    x, y = _axis(floors, LEFT, RIGHT), _axis([*times, *floors], BOTTOM, TOP)
    canvas = Canvas(WIDTH, HEIGHT)
    batch, channels, *space = result.shape
    sizes = f"batch {batch}, {channels} channels, {' x '.join(map(str, space))}, threads {result.threads}"
    canvas.add(Words((24, 26), f"{result.title}: forward time against the floor", size=16))
    canvas.add(Words((24, 48), sizes, size=12, colour=SOFT), Words((24, 66), _floor(result), size=12, colour=SOFT))
    _grid(canvas, x, y)
    _diagonals(canvas, x, y)
    points = [(x.at(floor), y.at(time)) for floor, time in zip(floors, times, strict=True)]
    colours = _colours(shown)
    for side, (px, py) in zip(shown, points, strict=True):
        timing = side.forward_ms
        assert timing is not None
        canvas.add(Line([(px, y.at(timing.q1)), (px, y.at(timing.q3))], colours[side.name], 2.0))
        canvas.add(Dot((px, py), 5.5, colours[side.name]))
    label_points(canvas, points, [side.name for side in shown], (LEFT + 2, TOP, RIGHT + 60, BOTTOM - 4))
    return canvas.write(path)


def _time(side: Measured) -> float:
    return side.forward_ms.median if side.forward_ms else 0.0


def _floor(result: Bench) -> str:
    machine = result.machine
    return (
        f"floor: the larger of map in, map out and parameters at {machine.bytes_per_second / 1e9:.0f} GB/s "
        f"and MACs at {machine.macs_per_second / 1e9:.0f} G/s"
    )


def _axis(values: Sequence[float], start: float, end: float) -> Axis:
    return Axis(min(values) / 1.5, max(values) * 1.5, start, end, logarithmic=True)


def _grid(canvas: Canvas, x: Axis, y: Axis) -> None:
    for value in y.ticks(6):
        canvas.add(Line([(LEFT, y.at(value)), (RIGHT, y.at(value))]))
        canvas.add(Words((LEFT - 8, y.at(value)), f"{value:g}", "end", 11, SOFT))
    canvas.add(Line([(LEFT, BOTTOM), (RIGHT, BOTTOM)], SOFT))
    for value in x.ticks(5):
        canvas.add(Line([(x.at(value), BOTTOM), (x.at(value), BOTTOM + 5)], SOFT))
        canvas.add(Words((x.at(value), BOTTOM + 16), f"{value:g}", "middle", 11, SOFT))
    canvas.add(Words(((LEFT + RIGHT) / 2, BOTTOM + 42), "floor, ms, logarithmic", "middle", 12, SOFT))
    canvas.add(
        Words((LEFT, BOTTOM + 64), "up: forward time, ms, logarithmic; bars are quartiles", size=12, colour=SOFT)
    )


def _diagonals(canvas: Canvas, x: Axis, y: Axis) -> None:
    """The floor, and ten and a hundred times it, as far as they cross the frame."""
    for factor, name in ((1, "the floor"), (10, "10 x"), (100, "100 x")):
        low, high = max(x.low, y.low / factor), min(x.high, y.high / factor)
        if low >= high:
            continue
        ends = [(x.at(value), y.at(value * factor)) for value in (low, high)]
        canvas.add(Line(ends, SOFT, 1.2 if factor == 1 else 0.8, dashed=factor != 1))
        (end_x, end_y), at_top = ends[1], high < x.high
        place = (end_x, end_y - 9) if at_top else (end_x + 7, end_y)
        canvas.add(Words(place, name, "middle" if at_top else "start", 11, SOFT))


def _colours(sides: Sequence[Measured]) -> dict[str, str]:
    """A mechanism of foveal has its own colour, whichever way it is evaluated."""
    mechanisms = {side.name: side.name.partition(":")[0].replace("non_local", "nonlocal") for side in sides}
    known = {name: mechanism for name, mechanism in mechanisms.items() if mechanism in MECHANISMS}
    spare = colours_of(name for name in mechanisms if name not in known)
    return {
        side.name: (MECHANISMS[known[side.name]] if side.name in known else spare[side.name]).light for side in sides
    }
