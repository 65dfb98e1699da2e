"""Objects drawn over an image: the mask tinted and outlined, the box, and the class with its score beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from foveal.data.detection.rle import decode
from foveal.viz.lettering import lettered

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

Picture = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]
Colour = tuple[int, int, int]

LEAST = 640
"""Pixels of the longer side of the result at least: smaller images are enlarged, so that names can be read."""
TINT = 0.45  # share of the colour within a mask
# Told apart by the colour-blind as far as twelve can be (after Okabe and Ito, and Tol), on dark and light.
COLOURS: tuple[Colour, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
    (136, 204, 238), (221, 204, 119), (170, 68, 153), (68, 170, 153), (204, 102, 119),
)  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """One object.

    Attributes:
        name: of its class.
        score: from 0 to 1.
        box: left, top, width, height in pixels of the image.
        mask: in COCO's run lengths; None where there is only a box.
        colour: a number that stands for the class.
    """

    name: str
    score: float
    box: Sequence[float]
    mask: dict[str, Any] | None = None
    colour: int = 0


def drawn(picture: Picture, objects: Sequence[Seen]) -> Picture:
    """The image ``(rows, columns, 3)`` with its objects, enlarged where it is small; what scores most is on top."""
    from PIL import Image, ImageDraw

    factor = max(1, -(-LEAST // max(picture.shape[:2])))
    ordered = sorted(objects, key=lambda seen: seen.score)
    base = Image.fromarray(picture).resize(
        (picture.shape[1] * factor, picture.shape[0] * factor), Image.Resampling.BICUBIC
    )
    canvas = np.array(base)
    width = max(2, max(canvas.shape[:2]) // 400)
    for seen in ordered:
        if seen.mask is not None:
            _tint(canvas, decode(seen.mask).astype(bool), factor, COLOURS[seen.colour % len(COLOURS)], width)
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for seen in ordered:
        draw.rectangle(_corners(seen.box, factor), outline=COLOURS[seen.colour % len(COLOURS)], width=width)
    _names(draw, ordered, factor, image.size)
    return np.asarray(image)


def _tint(canvas: Picture, mask: npt.NDArray[np.bool_], factor: int, colour: Colour, width: int) -> None:
    """Colour the pixels of a mask, and its edge fully."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return
    place = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    own = mask[place].repeat(factor, 0).repeat(factor, 1)
    part = canvas[rows[0] * factor : (rows[-1] + 1) * factor, columns[0] * factor : (columns[-1] + 1) * factor]
    part[own] = (part[own] * (1 - TINT) + np.array(colour) * TINT).round().astype(np.uint8)
    inner = np.pad(own, width)
    for _ in range(max(1, width // 2)):
        inner[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    part[own & ~inner[width:-width, width:-width]] = colour


def _corners(box: Sequence[float], factor: int) -> Box:
    left, top, width, height = (side * factor for side in box)
    return left, top, max(left + width - 1, left), max(top + height - 1, top)


def _names(draw: ImageDraw.ImageDraw, objects: Sequence[Seen], factor: int, size: tuple[int, int]) -> None:
    """Write the names where they hide least of each other, the surest first."""
    taken: list[Box] = []
    for seen in reversed(objects):
        colour = COLOURS[seen.colour % len(COLOURS)]
        text, font = lettered(f"{seen.name} {seen.score:.2f}", max(14, max(size) // 45))
        place = _place(_corners(seen.box, factor), _extent(font, text), size, taken)
        taken.append(place)
        draw.rectangle(place, fill=colour)
        dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
        middle = ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2)
        draw.text(middle, text, fill=(0, 0, 0) if dark else (255, 255, 255), font=font, anchor="mm")


def _extent(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> tuple[float, float]:
    left, top, right, bottom = font.getbbox(text)
    return right - left + 8, bottom - top + 8


def _place(box: Box, extent: tuple[float, float], size: tuple[int, int], taken: Sequence[Box]) -> Box:
    """Above the box, below it, or within it: where the name lies in the image and on as little as can be."""
    width, height = extent
    left, top, right, bottom = box
    corners = [(left, top - height), (right - width, top - height), (left, bottom), (right - width, bottom)]
    corners += [(left, top), (right - width, bottom - height)]

    def within(corner: tuple[float, float]) -> Box:
        x = min(max(corner[0], 0), max(size[0] - width, 0))
        y = min(max(corner[1], 0), max(size[1] - height, 0))
        return x, y, x + width, y + height

    return min((within(corner) for corner in corners), key=lambda place: sum(_shared(place, other) for other in taken))


def _shared(one: Box, other: Box) -> float:
    """Area of the overlap."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0) * max(down, 0)
