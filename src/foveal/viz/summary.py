"""A comparison as one picture for a README or a slide: accuracy against a cost, and where each mechanism looks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveal.analysis.comparison import Row, summarise
from foveal.errors import DataError
from foveal.viz.charts import accuracy_axis
from foveal.viz.overlay import as_rgb, enlarged, overlay
from foveal.viz.palette import colours_of
from foveal.viz.scale import Axis, cost_axis, place_labels, tick

if TYPE_CHECKING:
    from PIL import ImageDraw

INK, SOFT, LINE = "#16191d", "#5b6470", "#dde1e6"
LEFT, RIGHT, TOP, BOTTOM = 76, 730, 76, 580
CELL, GAP, GRID = 100, 10, 800
SMALL, LARGE = 20, 26
_COSTS = ("training_ms.ratio", "macs", "parameters")
_TITLES = {"training_ms.ratio": "time of a training step", "macs": "MACs of one image", "parameters": "parameters"}


def write_summary_png(
    results: Mapping[str, Any], looks: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]
) -> Path:
    """Draw mean accuracy against the time of a training step (against MACs where no time is known), and the maps.

    Arguments as for ``write_report``; the first four looks and the mechanisms that have maps of positions are shown.

    Raises:
        DataError: no record has a result and a cost.
    """
    from PIL import Image, ImageDraw

    rows = summarise(results.get("records") or ()).done
    key = next((key for key in _COSTS if any(key in row.costs for row in rows)), None)
    if key is None:
        raise DataError("write_summary_png: no record has an accuracy and a cost. Run the comparison to its end first.")
    names = list(dict.fromkeys(name for look in looks for name, seen in look["maps"].items() if _has_map(seen)))
    width = GRID + (1 + len(names)) * (CELL + GAP) + 14 if names else RIGHT + 40
    picture = Image.new("RGB", (width, 660), "white")
    draw = ImageDraw.Draw(picture)
    _chart(draw, [row for row in rows if key in row.costs], key, rows[0].mechanism)
    if names:
        _maps(picture, draw, looks[:4], names)
    target = Path(path)
    unfinished = target.with_name(target.name + ".part")
    picture.save(unfinished, format="PNG", optimize=True)
    unfinished.replace(target)
    return target


def _has_map(seen: Mapping[str, Any]) -> bool:
    return seen.get("attention") is not None


def _write(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, anchor: str, size: int, fill: str) -> None:
    from PIL import ImageFont

    draw.text(at, text, fill=fill, font=ImageFont.load_default(size), anchor=anchor)


def _chart(draw: ImageDraw.ImageDraw, rows: Sequence[Row], key: str, first: str) -> None:
    from PIL import ImageFont

    x, y = cost_axis([row.costs[key] for row in rows], LEFT, RIGHT), accuracy_axis(rows, BOTTOM, TOP)
    against = f"{_TITLES[key]}, times {first}" if key.endswith("ratio") else _TITLES[key]
    _write(draw, (LEFT - 60, 36), "Accuracy (%), mean and range over seeds", "lm", LARGE, INK)
    _write(draw, ((LEFT + RIGHT) / 2, 638), against, "mm", SMALL, SOFT)
    _grid(draw, x, y)
    points = [(x.at(row.costs[key]), y.at(100 * (row.mean or 0.0))) for row in rows]
    font = ImageFont.load_default(SMALL)
    widths = [font.getlength(row.mechanism) + 4 for row in rows]
    labels = place_labels(points, widths, 24, (LEFT, TOP - 10, RIGHT + 36, BOTTOM), radius=10)
    colours = colours_of(row.mechanism for row in rows)
    for row, (px, py), label, wide in zip(rows, points, labels, widths, strict=True):
        low, high = (y.at(100 * value) for value in (min(row.accuracies), max(row.accuracies)))
        draw.line([(px, low), (px, high)], fill=colours[row.mechanism].light, width=3)
        if label[2]:
            draw.line([(px, py), (min(max(px, label[0]), label[0] + wide), label[1])], fill=SOFT)
    for row, (px, py), label in zip(rows, points, labels, strict=True):
        draw.ellipse((px - 9, py - 9, px + 9, py + 9), fill=colours[row.mechanism].light, outline="white", width=2)
        _write(draw, (label[0] + 2, label[1]), row.mechanism, "lm", SMALL, INK)


def _grid(draw: ImageDraw.ImageDraw, x: Axis, y: Axis) -> None:
    for value in (v for v in y.ticks(5) if v <= 100):
        draw.line([(LEFT, y.at(value)), (RIGHT, y.at(value))], fill=LINE, width=2)
        _write(draw, (LEFT - 12, y.at(value)), f"{value:g}", "rm", SMALL, SOFT)
    draw.line([(LEFT, BOTTOM), (RIGHT, BOTTOM)], fill=SOFT, width=2)
    for value in x.ticks(5):
        draw.line([(x.at(value), BOTTOM), (x.at(value), BOTTOM + 7)], fill=SOFT, width=2)
        _write(draw, (x.at(value), BOTTOM + 24), tick(value), "mm", SMALL, SOFT)


def _maps(picture: Any, draw: ImageDraw.ImageDraw, looks: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    from PIL import Image

    _write(draw, (GRID, 36), "Where the marked point looks", "lm", LARGE, INK)
    step = CELL + GAP
    for column, name in enumerate(names, start=1):
        _write(draw, (GRID + column * step + CELL / 2, 84), name, "mm", SMALL - 2, INK)
    for line, look in enumerate(looks):
        image = as_rgb(look["image"])
        top = 104 + line * step
        cells = [enlarged(image, size=CELL)]
        cells += [_cell(look["maps"].get(name, {}), image) for name in names]
        for column, cell in enumerate(cells):
            left = GRID + column * step
            picture.paste(Image.fromarray(cell), (left, top))
            if column == 0 or _has_map(look["maps"].get(names[column - 1], {})):
                px, py = (
                    side + (float(look["point"][axis]) + 0.5) / image.shape[axis] * cell.shape[axis]
                    for side, axis in ((left, 1), (top, 0))
                )
                draw.ellipse((px - 6, py - 6, px + 6, py + 6), outline="black", width=4)
                draw.ellipse((px - 5, py - 5, px + 5, py + 5), outline="white", width=2)
    foot = 104 + len(looks) * step + 14
    _write(draw, (GRID, foot), "from 0 (dark) to each map's largest weight (yellow)", "lm", SMALL - 2, SOFT)


def _cell(seen: Mapping[str, Any], image: Any) -> Any:
    return overlay(image, seen["attention"], size=CELL) if _has_map(seen) else 0 * enlarged(image, size=CELL) + 245
