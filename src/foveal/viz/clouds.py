"""Clouds of points from several sides: coloured by part, and by what one of the points attends to.

Near points are drawn over far ones and darker: there is nothing else to tell depth by. Weights go from nothing to the
largest of them, on the one scale of all maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foveal.viz.canvas import INK, SOFT, Bar, Canvas, Dot, Image, Words, pixels, width_of
from foveal.viz.overlay import Array, colours, normalised

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#8a8a2b", "#661100")
"""Of the parts of a category, told apart by the colour-blind (after Okabe and Ito); more of them begin again."""
VIEWS = ((30, 20), (120, 20), (210, 50))
"""Turn about the vertical axis and height of the eye, in degrees."""
SIDE = 220  # units of a view
_PIXELS, _FINE = 2, 3
MARK = "#e4002b"
_MARGIN, _GAP, _HEAD = 14, 8, 46
_ROW = SIDE + 34  # a row of views with its legend


@dataclass(frozen=True)
class Attended:
    """What one point attends to.

    Attributes:
        places: ``(m, 3)``, what the attention layer sees.
        weights: ``(m,)``, at least 0.
        mark: which of the places they are of.
        layer: whose weights they are.
    """

    places: Array
    weights: Array
    mark: int
    layer: str


@dataclass(frozen=True)
class CloudPicture:
    """What is drawn of one cloud.

    Attributes:
        title: the file.
        told: the answer, in a line.
        points: ``(n, 3)``, the second axis upwards.
        parts: ``(n,)``, which of ``names`` each is; None where there are none.
        names: of the parts.
        attended: None where there is no attention.
    """

    title: str
    told: str
    points: Array
    parts: npt.NDArray[np.int64] | None
    names: Sequence[str]
    attended: Attended | None


def draw(cloud: CloudPicture) -> npt.NDArray[np.uint8]:
    """One picture, ``(rows, columns, 3)`` bytes: a row of views by part, and one by attention, of what there is.

    Where there is neither, the cloud itself.
    """
    centre, reach = _frame(cloud.points)
    by_part = cloud.parts is not None or cloud.attended is None
    width = 2 * _MARGIN + len(VIEWS) * SIDE + (len(VIEWS) - 1) * _GAP
    canvas = Canvas(width, _HEAD + (by_part + (cloud.attended is not None)) * _ROW + 4)
    canvas.add(Words((_MARGIN, 16), _cut(cloud.title, width - 2 * _MARGIN, 13), size=13))
    canvas.add(Words((_MARGIN, 34), _cut(cloud.told, width - 2 * _MARGIN, 12), size=12, colour=SOFT))
    top = float(_HEAD)
    if by_part:
        table = np.array([_rgb(colour) for colour in COLOURS])
        parts = np.zeros(len(cloud.points), np.int64) if cloud.parts is None else cloud.parts
        _views(canvas, top, cloud.points, table[parts % len(table)], None, centre, reach)
        if cloud.parts is not None:
            _part_legend(canvas, top + SIDE + 12, cloud.parts, cloud.names)
        top += _ROW
    if cloud.attended is not None:
        seen = cloud.attended
        _views(canvas, top, seen.places, colours(normalised(seen.weights)), seen.mark, centre, reach)
        _scale_legend(canvas, top + SIDE + 12, seen)
    return pixels(canvas)


def _frame(points: Array) -> tuple[Array, float]:
    """The middle of the cloud and how far it reaches from there."""
    centre: Array = (points.max(0) + points.min(0)) / 2
    reach = float(np.linalg.norm(points - centre, axis=1).max())
    return centre, reach or 1.0


def _views(
    canvas: Canvas, top: float, points: Array, shades: Array, mark: int | None, centre: Array, reach: float
) -> None:
    for n, view in enumerate(VIEWS):
        picture = rendered((points - centre) / reach, shades, view, mark)
        canvas.add(Image((_MARGIN + n * (SIDE + _GAP), top), (SIDE, SIDE), picture))


def rendered(points: Array, shades: Array, view: tuple[float, float], mark: int | None) -> npt.NDArray[np.uint8]:
    """One view of points in the unit ball, ``(rows, columns, 3)`` bytes.

    Args:
        points: ``(n, 3)``.
        shades: ``(n, 3)`` in 0 to 1.
        view: turn and height of the eye, in degrees.
        mark: a point with a ring around it, drawn over all others.
    """
    import PIL.Image
    from PIL import ImageDraw

    size = SIDE * _PIXELS * _FINE
    turned = points @ _eye(*view).T
    middle = size / 2
    x, y = middle + turned[:, 0] * 0.43 * size, middle - turned[:, 1] * 0.43 * size
    radius = size * float(np.clip(0.28 / np.sqrt(len(points)), 0.006, 0.03))
    # From somewhat washed out, far away, to the full colour.
    near = np.clip((turned[:, 2] + 1) / 2, 0, 1)[:, None]
    inks = np.round((shades + (1 - shades) * 0.4 * (1 - near)) * 255).astype(int)
    picture = PIL.Image.new("RGB", (size, size), "#e8ebef")
    pen = ImageDraw.Draw(picture)
    for n in np.argsort(turned[:, 2], kind="stable"):
        for reach, ink in ((radius * 1.25, "white"), (radius, tuple(inks[n].tolist()))):
            pen.ellipse((x[n] - reach, y[n] - reach, x[n] + reach, y[n] + reach), fill=ink)
    if mark is not None:
        # The ring goes over everything, also where the point is behind: it is what the weights belong to.
        for reach, ink, wide in ((radius * 2.9, "white", 0.9), (radius * 2.6, MARK, 0.5)):
            box = (x[mark] - reach, y[mark] - reach, x[mark] + reach, y[mark] + reach)
            pen.ellipse(box, outline=ink, width=max(2, round(radius * wide)))
    small = picture.reduce(_FINE)
    return np.asarray(small)


def _eye(turn: float, height: float) -> Array:
    """``(3, 3)``: right, up and towards the eye."""
    a, b = np.radians(turn), np.radians(height)
    about = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    product: Array = tilt @ about
    return product


def _part_legend(canvas: Canvas, y: float, parts: npt.NDArray[np.int64], names: Sequence[str]) -> None:
    """The parts that are there, the largest first, with their shares; what does not fit is counted."""
    counts = np.bincount(parts, minlength=len(names))
    shown = [n for n in np.argsort(-counts, kind="stable") if counts[n]]
    x, end = float(_MARGIN), canvas.width - _MARGIN
    for position, n in enumerate(shown):
        words = f"{names[n]}  {100 * counts[n] / len(parts):.0f} %"
        rest = len(shown) - position
        if x + 14 + width_of(words, 12) > end - (60 if rest > 1 else 0):
            canvas.add(Words((x, y), f"and {rest} more", size=12, colour=SOFT))
            return
        canvas.add(Dot((x + 5, y), 5, COLOURS[n % len(COLOURS)]), Words((x + 14, y), words, size=12))
        x += 14 + width_of(words, 12) + 18


def _scale_legend(canvas: Canvas, y: float, seen: Attended) -> None:
    wide, steps = 120.0, 60
    for n in range(steps):
        colour = hexed(colours(np.array((n + 0.5) / steps)))
        canvas.add(Bar((_MARGIN + 14 + n * wide / steps, y - 5), (wide / steps + 0.3, 10), colour))
    largest = f"{float(np.max(seen.weights)):.2g} (even: {1 / len(seen.weights):.2g})"
    canvas.add(Words((_MARGIN, y), "0", size=12), Words((_MARGIN + 20 + wide, y), largest, size=12))
    x = _MARGIN + 34 + wide + width_of(largest, 12)
    # Two rings make one: a dot has no hole.
    canvas.add(Dot((x + 6, y), 6, MARK), Dot((x + 6, y), 3.6, "#ffffff"))
    told = f"what the marked point attends to, {seen.layer}"
    canvas.add(Words((x + 18, y), _cut(told, canvas.width - x - 18 - _MARGIN, 12), size=12, colour=INK))


def hexed(shade: Array) -> str:
    """A colour in 0 to 1 as ``#rrggbb``."""
    return "#" + "".join(f"{round(float(value) * 255):02x}" for value in shade)


def _rgb(colour: str) -> list[float]:
    return [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]


def _cut(words: str, width: float, size: float) -> str:
    """The words, with what is before the end left out where they are too long: the end of a path says more."""
    if width_of(words, size) <= width:
        return words
    while words and width_of("…" + words, size) > width:
        words = words[1:]
    return "…" + words
