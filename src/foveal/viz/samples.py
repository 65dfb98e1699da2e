"""Generated images side by side: a row for each class, with its name."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from foveal.viz.canvas import Canvas, Image, Words, pixels, width_of

LEAST = 40  # pixels of an image; smaller ones are enlarged by whole numbers, so that every pixel stays a square
GAP, EDGE, LETTERS = 1.0, 4.0, 11.0


def sample_rows(images: npt.NDArray[Any], names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """A picture ``(height, width, 3)`` of images ``(rows, columns, size, size, channels)``, all 8 bits.

    Args:
        images: of 1 or 3 channels.
        names: of the rows; none is written where there are none.
    """
    rows, columns, size, _, channels = images.shape
    cell = size * ceil(LEAST / size) / 2  # the canvas has two pixels a unit
    left = EDGE + (max(width_of(name, LETTERS) for name in names) + 2 * EDGE if names else 0)
    width, height = left + columns * (cell + GAP) + EDGE, 2 * EDGE + rows * (cell + GAP)
    canvas = Canvas(ceil(width), ceil(height))
    for row in range(rows):
        y = EDGE + row * (cell + GAP)
        if names:
            canvas.add(Words((left - 2 * EDGE, y + cell / 2), names[row], "end", LETTERS))
        for column in range(columns):
            image = images[row, column] if channels == 3 else images[row, column].repeat(3, -1)
            canvas.add(Image((left + column * (cell + GAP), y), (cell, cell), image))
    return pixels(canvas)
