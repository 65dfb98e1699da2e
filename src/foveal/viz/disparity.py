"""Disparities in colour over a bar that says which colour is how many pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from foveal.errors import ShapeError
from foveal.viz.overlay import colours, resized, to_bytes

Array = npt.NDArray[Any]
NARROWEST = 320  # pixels of a picture's width, so that the numbers of the bar are legible
UNKNOWN = 128  # grey of what is not known
BAR, MARGIN, SIZE, TICK = 12, 8, 13, 4
FEWEST = 70  # pixels between two numbers of the bar
WIDE = 650  # pixels from which on the bar and its numbers grow with the picture


def drawn(disparity: Array) -> Array:
    """A picture of a map.

    Args:
        disparity: ``(rows, columns)`` pixels, NaN where nothing is known.

    Returns:
        ``(rows, columns, 3)`` bytes: the map, each pixel a whole number of pixels wide, from dark (the least disparity,
        far away) to light, and the bar under it.

    Raises:
        ShapeError: the map has other axes.
    """
    if np.ndim(disparity) != 2 or np.size(disparity) == 0:
        raise ShapeError(f"drawn: a disparity must be (rows, columns), got shape {np.shape(disparity)}.")
    values = np.asarray(disparity, dtype=float)
    low, high = _range(values)
    known = np.isfinite(values)
    share = (np.where(known, values, low) - low) / (high - low)
    picture = np.where(known[..., None], to_bytes(colours(share)), UNKNOWN).astype(np.uint8)
    factor = max(1, math.ceil(NARROWEST / values.shape[1]))
    large = resized(picture, (values.shape[0] * factor, values.shape[1] * factor))
    return np.concatenate([large, bar(low, high, large.shape[1])])


def bar(low: float, high: float, width: int) -> Array:
    """``(rows, width, 3)`` bytes: the scale from ``low`` to ``high`` pixels of disparity, with numbers."""
    import PIL.Image
    from PIL import ImageDraw, ImageFont

    times = max(1.0, width / WIDE)
    thick, margin, size, tick = (round(pixels * times) for pixels in (BAR, MARGIN, SIZE, TICK))
    long = width - 2 * margin
    strip = np.broadcast_to(to_bytes(colours(np.linspace(0, 1, long)))[None], (thick, long, 3))
    picture = PIL.Image.new("RGB", (width, 2 * margin + thick + tick + size + 2), "white")
    picture.paste(PIL.Image.fromarray(np.ascontiguousarray(strip)), (margin, margin))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    under = margin + thick
    for value in ticks(low, high, max(2, int(long / (FEWEST * times)))):
        at = margin + (value - low) / (high - low) * (long - 1)
        draw.line((at, under, at, under + tick), fill="black", width=round(times))
        text = f"{value:g} px"
        half = font.getlength(text) / 2
        # The first and the last number end where the bar does.
        middle = min(max(at, margin + half), width - margin - half)
        draw.text((middle, under + tick + round(3 * times)), text, fill="black", font=font, anchor="mt")
    return np.asarray(picture)


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most ``most`` round numbers within a range, evenly apart, as many as that allows."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    found = (_multiples(low, high, step * times) for times in (1, 2, 5, 10, 20))
    return next(numbers for numbers in found if len(numbers) <= most)


def _multiples(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * n, 10) for n in range(first, last + 1)]


def _range(values: Array) -> tuple[float, float]:
    """From the least to the largest value, a pixel at least."""
    known = values[np.isfinite(values)]
    if known.size == 0:
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    return low, max(high, low + 1)
