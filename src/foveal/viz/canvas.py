"""A picture of lines, dots and words, written as SVG or PNG from the same description."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from math import dist
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from foveal.errors import DataError, OptionError
from foveal.viz.lettering import lettered
from foveal.viz.overlay import data_uri
from foveal.viz.scale import Box, place_labels

if TYPE_CHECKING:
    import PIL.Image
    from PIL import ImageDraw

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]
INK, SOFT, LINE = "#16191d", "#5b6470", "#dde1e6"
# A PNG has two pixels a unit, each the mean of four by four.
_PIXELS, _FINE = 2, 4
_DASH = (5.0, 4.0)


@dataclass(frozen=True)
class Line:
    points: Sequence[Point]
    colour: str = LINE
    width: float = 1.0
    dashed: bool = False


@dataclass(frozen=True)
class Dot:
    at: Point
    radius: float
    colour: str


@dataclass(frozen=True)
class Words:
    """``at`` is the middle of the line's height."""

    at: Point
    text: str
    anchor: Anchor = "start"
    size: float = 12.0
    colour: str = INK


@dataclass(frozen=True)
class Image:
    """``pixels`` are bytes ``(rows, columns, 3)``, stretched over ``size`` from the upper left corner ``at``."""

    at: Point
    size: Point
    pixels: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Bar:
    """A filled rectangle."""

    at: Point
    size: Point
    colour: str


Shape = Line | Dot | Words | Image | Bar


@dataclass
class Canvas:
    """Shapes in the order in which they are drawn. ``fine`` squared samples make a pixel of a PNG."""

    width: int
    height: int
    shapes: list[Shape] = field(default_factory=list)
    fine: int = _FINE

    def add(self, *shapes: Shape) -> None:
        self.shapes += shapes

    def write(self, path: str | os.PathLike[str]) -> Path:
        """As the ending of the name says.

        Raises:
            OptionError: it is neither .svg nor .png.
            DataError: the file cannot be written.
        """
        target = Path(path)
        kind = target.suffix.lower()
        if kind not in (".svg", ".png"):
            raise OptionError(f"plot: the file must end in .svg or .png, got {os.fspath(path)!r}.")
        unfinished = target.with_name(target.name + ".part")
        try:
            if kind == ".svg":
                unfinished.write_text(svg(self), encoding="utf-8")
            else:
                _write_png(self, unfinished)
            unfinished.replace(target)
        except OSError as error:
            raise DataError(f"plot: {target} cannot be written: {error.strerror}. Use another path.") from error
        return target


def label_points(canvas: Canvas, points: Sequence[Point], labels: Sequence[str], frame: Box, size: float = 12) -> None:
    """Write a label beside each point where it lies on nothing, with a line to it where that is far off."""
    widths = [width_of(label, size) + 4 for label in labels]
    places = place_labels(points, widths, size + 3, frame)
    for (x, y), width, label, (left, middle, off) in zip(points, widths, labels, places, strict=True):
        if off:
            canvas.add(Line([(x, y), (min(max(x, left), left + width), middle)], SOFT, 0.7))
        canvas.add(Words((left + width / 2, middle), label, "middle", size))


def width_of(text: str, size: float) -> float:
    """About as wide as a line of words is."""
    text, font = lettered(text, round(size * 4))
    return float(font.getlength(text)) / 4


def svg(canvas: Canvas) -> str:
    """The whole document."""
    inside = "\n".join(_svg(shape) for shape in canvas.shapes)
    size = f'width="{canvas.width}" height="{canvas.height}" viewBox="0 0 {canvas.width} {canvas.height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="system-ui, Helvetica, Arial, sans-serif">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{inside}\n</svg>\n'
    )


def _svg(shape: Shape) -> str:
    if isinstance(shape, Image | Bar):
        (x, y), (wide, high) = shape.at, shape.size
        box = f'x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}"'
        if isinstance(shape, Bar):
            return f'<rect {box} fill="{shape.colour}"/>'
        return f'<image {box} preserveAspectRatio="none" href="{data_uri(shape.pixels)}"/>'
    if isinstance(shape, Line):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
        dash = f' stroke-dasharray="{_DASH[0]:g} {_DASH[1]:g}"' if shape.dashed else ""
        style = f'stroke="{shape.colour}" stroke-width="{shape.width:g}"{dash}'
        return f'<polyline points="{points}" fill="none" {style}/>'
    x, y = shape.at
    if isinstance(shape, Dot):
        return (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{shape.radius:g}" fill="{shape.colour}" stroke="white" '
            'stroke-width="1"/>'
        )
    return (
        f'<text x="{x:.1f}" y="{y + 0.35 * shape.size:.1f}" font-size="{shape.size:g}" fill="{shape.colour}" '
        f'text-anchor="{shape.anchor}">{escape(shape.text)}</text>'
    )


def pixels(canvas: Canvas) -> npt.NDArray[np.uint8]:
    """The picture as bytes ``(rows, columns, 3)``, two pixels a unit."""
    return np.asarray(_raster(canvas))


def _write_png(canvas: Canvas, path: Path) -> None:
    _raster(canvas).save(path, format="PNG", optimize=True)


def _raster(canvas: Canvas) -> PIL.Image.Image:
    import PIL.Image
    from PIL import ImageDraw

    scale = _PIXELS * canvas.fine
    picture = PIL.Image.new("RGB", (canvas.width * scale, canvas.height * scale), "white")
    draw = ImageDraw.Draw(picture)
    for shape in canvas.shapes:
        if isinstance(shape, Image):
            wide, high = (round(length * scale) for length in shape.size)
            stretched = PIL.Image.fromarray(shape.pixels).resize((wide, high), PIL.Image.Resampling.NEAREST)
            picture.paste(stretched, (round(shape.at[0] * scale), round(shape.at[1] * scale)))
        else:
            _paint(draw, shape, scale)
    return picture.reduce(canvas.fine)


def _paint(draw: ImageDraw.ImageDraw, shape: Line | Dot | Words | Bar, scale: int) -> None:
    if isinstance(shape, Bar):
        (x, y), (wide, high) = shape.at, shape.size
        draw.rectangle((x * scale, y * scale, (x + wide) * scale, (y + high) * scale), fill=shape.colour)
        return
    if isinstance(shape, Line):
        pieces = _dashes(shape.points) if shape.dashed else [shape.points]
        for piece in pieces:
            scaled = [(x * scale, y * scale) for x, y in piece]
            draw.line(scaled, fill=shape.colour, width=round(shape.width * scale), joint="curve")
        return
    x, y = (value * scale for value in shape.at)
    if isinstance(shape, Dot):
        for radius, colour in ((shape.radius + 0.5, "white"), (shape.radius - 0.5, shape.colour)):
            reach = radius * scale
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)
        return
    anchor = {"start": "lm", "middle": "mm", "end": "rm"}[shape.anchor]
    text, font = lettered(shape.text, round(shape.size * scale))
    draw.text((x, y), text, fill=shape.colour, font=font, anchor=anchor)


def _dashes(points: Sequence[Point]) -> list[list[Point]]:
    pieces = []
    for (ax, ay), (bx, by) in pairwise(points):
        length, at = dist((ax, ay), (bx, by)), 0.0
        while at < length:
            ends = (at, min(at + _DASH[0], length))
            pieces.append([(ax + (bx - ax) * e / length, ay + (by - ay) * e / length) for e in ends])
            at += sum(_DASH)
    return pieces
