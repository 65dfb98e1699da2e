"""Sheets of images with maps over them, as SVG or PNG: one scale, half-height contours, rings around points."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from foveal.analysis.figures import Picture, Sheet
from foveal.viz.canvas import SOFT, Canvas, Dot, Image, Line, Words, width_of
from foveal.viz.overlay import Array, as_rgb, colours, normalised, overlay, resized, smoothed, to_bytes

# Of Okabe and Ito, told apart by the colour-blind; the first is for a single point.
POINTS = ("#d55e00", "#0072b2", "#cc79a7", "#009e73", "#e69f00", "#56b4e9", "#f0e442")
MARGIN, GAP, HEAD, TITLE, NOTE = 24, 10, 50, 22, 18
CELL, SMALL_CELL, MANY = 168, 104, 6
HALF = 0.5


def draw_sheet(sheet: Sheet, path: str | os.PathLike[str]) -> Path:
    """Write a sheet as the ending of the name says, .svg or .png."""
    return sheet_canvas(sheet).write(path)


def sheet_canvas(sheet: Sheet) -> Canvas:
    """The sheet's rows below each other; pictures are smaller where a row has many."""
    wide = max(map(len, sheet.rows))
    cell = SMALL_CELL if wide > MANY else CELL
    shown = [[_shown(picture, cell) for picture in row] for row in sheet.rows]
    highs = [max(pixels.shape[0] for pixels in row) / 2 for row in shown]
    notes = [NOTE if any(picture.note for picture in row) else 0 for row in sheet.rows]
    heads = [TITLE if any(picture.title for picture in row) else 0 for row in sheet.rows]
    width = max(2 * MARGIN + wide * cell + (wide - 1) * GAP, 420)
    lines = wrapped(sheet.caption, width - 2 * MARGIN)
    height = HEAD + sum(highs) + sum(heads) + sum(notes) + GAP * len(highs) + 46 + 15 * len(lines)
    canvas = Canvas(width, round(height), fine=2)
    canvas.add(Words((MARGIN, 30), sheet.title, size=17))
    top = float(HEAD)
    for row, pictures, high, head, note in zip(sheet.rows, shown, highs, heads, notes, strict=True):
        for column, (picture, pixels) in enumerate(zip(row, pictures, strict=True)):
            _place(canvas, picture, pixels, (MARGIN + column * (cell + GAP), top + head))
        top += high + head + note + GAP
    _legend(canvas, top + 12, [one for row in sheet.rows for one in row if one.heat is not None])
    for line, text in enumerate(lines):
        canvas.add(Words((MARGIN, top + 40 + 15 * line), text, size=11, colour=SOFT))
    return canvas


def _shown(picture: Picture, cell: int) -> Array:
    """Two pixels a unit: the image, or the map over its grey."""
    if picture.image is None:
        assert picture.heat is not None
        values = picture.heat / picture.top if picture.top else normalised(picture.heat)
        return to_bytes(colours(resized(values, (2 * cell, 2 * cell))))
    image = as_rgb(picture.image)
    if picture.heat is not None:
        return overlay(image, picture.heat, size=2 * cell, strength=0.62)
    scale = 2 * cell / max(image.shape[:2])
    size = (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale)))
    return to_bytes(smoothed(image, size))


def _place(canvas: Canvas, picture: Picture, pixels: Array, at: tuple[float, float]) -> None:
    wide, high = pixels.shape[1] / 2, pixels.shape[0] / 2
    if picture.title:
        canvas.add(Words((at[0], at[1] - TITLE / 2), picture.title, size=12))
    canvas.add(Image(at, (wide, high), pixels))
    if picture.heat is not None and picture.contour:
        for points in contours(picture.heat, pixels.shape[:2]):
            line = [(at[0] + x / 2, at[1] + y / 2) for x, y in points]
            canvas.add(Line(line, "#000000", 2.4), Line(line, "#ffffff", 1.2))
    if picture.note:
        canvas.add(Words((at[0], at[1] + high + NOTE / 2), picture.note, size=11, colour=SOFT))
    if picture.image is None:
        return
    rows, columns = np.shape(picture.image)[:2]
    for point, colour in zip(picture.points, picture.colours, strict=True):
        x, y = at[0] + (point[1] + 0.5) / columns * wide, at[1] + (point[0] + 0.5) / rows * high
        canvas.add(Dot((x, y), 7, "#000000"), Dot((x, y), 5.5, POINTS[colour % len(POINTS)]))


def contours(heat: Array, size: tuple[int, ...]) -> list[Array]:
    """Lines ``(points, 2)`` of x and y in pixels of ``size`` where a map has half of its peak."""
    from contourpy import contour_generator

    scaled = normalised(heat)
    if scaled.max() <= 0 or min(scaled.shape) < 2:
        return []
    rows, columns = scaled.shape
    lines = contour_generator(z=scaled).lines(HALF)
    place = np.array([size[1] / columns, size[0] / rows])
    return [(np.asarray(line) + 0.5) * place for line in lines]


def _legend(canvas: Canvas, top: float, maps: list[Picture]) -> None:
    ramp = to_bytes(resized(colours(np.linspace(0, 1, 128))[None], (8, 128)))
    shared = any(one.top is not None for one in maps)
    low, told = ("least", "most, of all maps") if shared else ("0", "each map's largest value")
    if any(one.contour and one.heat is not None and contours(one.heat, (8, 8)) for one in maps):
        told += "; the line is at half of it"
    left = MARGIN + width_of(low, 11) + 7
    canvas.add(
        Words((MARGIN, top), low, size=11, colour=SOFT),
        Image((left, top - 5), (120, 10), ramp),
        Words((left + 128, top), told, size=11, colour=SOFT),
    )


def wrapped(text: str, width: float) -> list[str]:
    """A caption in lines of at most ``width``; one empty line where there is none."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines[-1:] = [longer] if width_of(longer, 11) <= width else [lines[-1], word]
    return lines
