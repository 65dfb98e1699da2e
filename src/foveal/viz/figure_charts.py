"""The papers' charts: learned radius by layer, and what efficient and non-local attention need by size."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import ceil, floor, log10
from pathlib import Path

from foveal.analysis.figures import Requirement
from foveal.viz.canvas import INK, SOFT, Bar, Canvas, Dot, Line, Words, width_of
from foveal.viz.palette import colours_of
from foveal.viz.scale import Axis, tick
from foveal.viz.sheets import MARGIN, POINTS, wrapped

LEFT = 64


def draw_radii(
    radii: Mapping[str, Mapping[str, Sequence[float]]], path: str | os.PathLike[str], caption: str = ""
) -> Path:
    """ExpAtt, figure 3: one line a model, one dot a layer and head.

    Args:
        radii: by model, then by layer, one value a head or one for all.
        path: .svg or .png.
        caption: below it, such as where the weights come from.
    """
    names = list(dict.fromkeys(layer for own in radii.values() for layer in own))
    labels = dict(zip(names, shortened(names), strict=True))
    step = max(30.0, max(width_of(label, 11) for label in labels.values()) + 10)
    right, top, bottom = LEFT + step * len(names), 62 + 16.0 * len(radii), 250 + 16.0 * len(radii)
    width = max(round(right) + MARGIN, 460)
    lines = wrapped(caption, width - 2 * MARGIN)
    canvas = Canvas(width, round(bottom) + 56 + 15 * len(lines))
    canvas.add(Words((MARGIN, 28), "Radius of explicit attention", size=16))
    canvas.add(*(Words((MARGIN, bottom + 62 + 15 * n), text, size=11, colour=SOFT) for n, text in enumerate(lines)))
    highest = max(abs(value) for own in radii.values() for heads in own.values() for value in heads)
    y = Axis(0.0, 1.1 * highest or 1.0, bottom, top)
    for value in y.ticks(5):
        canvas.add(Line([(LEFT, y.at(value)), (right, y.at(value))]))
        canvas.add(Words((LEFT - 8, y.at(value)), tick(value), "end", 11, SOFT))
    at = {name: LEFT + step * (n + 0.5) for n, name in enumerate(names)}
    canvas.add(*(Words((x, bottom + 14), labels[name], "middle", 11, INK) for name, x in at.items()))
    canvas.add(Words(((LEFT + right) / 2, bottom + 36), "layer, in the order of the model", "middle", 12, SOFT))
    for number, (model, own) in enumerate(radii.items()):
        colour, line = POINTS[number % len(POINTS)], 54 + 16.0 * number
        means = [(at[layer], y.at(sum(map(abs, heads)) / len(heads))) for layer, heads in own.items()]
        dots = [Dot((at[layer], y.at(abs(radius))), 4, colour) for layer, heads in own.items() for radius in heads]
        canvas.add(Line(means, colour, 1.5), *dots)
        canvas.add(Dot((MARGIN + 5, line), 4, colour), Words((MARGIN + 16, line), model, size=12))
    return canvas.write(path)


def shortened(names: Sequence[str]) -> list[str]:
    """Dotted names without the parts that all of them share, ``layer3.0`` for ``layer3.0.conv2.attention``."""
    parts = [name.split(".") for name in names]
    if len(names) < 2 or len({len(own) for own in parts}) > 1:
        return list(names)
    told = [index for index in range(len(parts[0])) if len({own[index] for own in parts}) > 1]
    short_names = [".".join(own[index] for index in told) for own in parts]
    bare = [name.removeprefix("layer") for name in short_names]
    return (bare if all(name != own for name, own in zip(short_names, bare, strict=True)) else short_names) or list(
        names
    )


def draw_requirements(rows: Sequence[Requirement], path: str | os.PathLike[str]) -> Path:
    """Efficient Attention, figure 3: memory and operations of both modules, logarithmic."""
    canvas = Canvas(900, 400)
    canvas.add(Words((MARGIN, 28), "What a module needs, by the size of its map: d = d_v = 2 d_k = 64", size=16))
    colours = colours_of(["efficient", "nonlocal"])
    for n, (name, told) in enumerate((("efficient", "efficient attention"), ("nonlocal", "non-local"))):
        x = MARGIN + 6 + 170.0 * n
        canvas.add(Bar((x - 6, 48), (12, 12), colours[name].light), Words((x + 12, 54), told, size=12))
    memory = [(row.size, 4.0 * row.efficient_floats, 4.0 * row.non_local_floats) for row in rows]
    work = [(row.size, row.efficient_operations, row.non_local_operations) for row in rows]
    _bars(canvas, 0, "memory, bytes in float32", memory, (colours["efficient"].light, colours["nonlocal"].light))
    _bars(canvas, 440, "operations, two a multiply-add", work, (colours["efficient"].light, colours["nonlocal"].light))
    return canvas.write(path)


def _bars(
    canvas: Canvas, left: float, title: str, rows: Sequence[tuple[str, float, float]], colours: tuple[str, str]
) -> None:
    top, bottom, start, end = 110.0, 330.0, left + LEFT, left + 440.0
    low, high = min(row[1] for row in rows), max(row[2] for row in rows)
    y = Axis(10.0 ** floor(log10(low) - 0.3), 10.0 ** ceil(log10(high)), bottom, top, logarithmic=True)
    canvas.add(Words((left + MARGIN, 86), title, size=13, colour=SOFT))
    for decade in range(round(log10(y.low)), round(log10(y.high)) + 1):
        value = 10.0**decade
        canvas.add(Line([(start, y.at(value)), (end, y.at(value))]))
        canvas.add(Words((start - 7, y.at(value)), tick(value), "end", 10.5, SOFT))
    step = (end - start) / len(rows)
    for n, (size, *values) in enumerate(rows):
        middle = start + step * (n + 0.5)
        for side, (value, colour) in enumerate(zip(values, colours, strict=True)):
            x = middle + (side - 1) * 24
            canvas.add(Bar((x, y.at(value)), (23, bottom - y.at(value)), colour))
        canvas.add(Words((middle, bottom + 14), size, "middle", 10.5, INK))
        canvas.add(Words((middle, bottom + 30), f"{values[1] / values[0]:,.0f}x", "middle", 10.5, SOFT))
    canvas.add(Line([(start, bottom), (end, bottom)], SOFT))
    canvas.add(Words(((start + end) / 2, bottom + 50), "size of the map, and how many times less", "middle", 12, SOFT))
