"""Files of labels: what their values stand for, and every way in which they can be wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from foveal.data.picture import guarded, quiet
from foveal.data.segmentation.classes import RGB, voc_colours
from foveal.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

Labels = npt.NDArray[np.uint8]
Values = npt.NDArray[Any]
IGNORE = 255
MOST_CLASSES = 255
_WRONG = -1
_WHITE_EDGE: RGB = (224, 224, 192)  # of VOC's borders: the colour of number 255


@dataclass(frozen=True)
class Coding:
    """How files hold labels.

    Attributes:
        values: value in a file to class, ``IGNORE`` for what does not count.
        told: the values in words.
        colours: of the classes, where files may hold these instead.
        renumbered: whether the colours of a palette tell more than its numbers.
    """

    values: Mapping[int, int]
    told: str
    colours: Sequence[RGB] = field(default=())
    renumbered: bool = True

    @classmethod
    def plain(cls, classes: int, *, coloured: bool = True, renumbered: bool = True) -> Coding:
        """The value is the class, and 255 does not count; ``coloured`` takes VOC's colours too."""
        values = {number: number for number in range(classes)} | {IGNORE: IGNORE}
        colours = voc_colours(classes) if coloured else ()
        return cls(values, f"0 to {classes - 1}, and {IGNORE} for what does not count", colours, renumbered)

    @cached_property
    def table(self) -> npt.NDArray[np.int16]:
        """Class of each 8-bit value."""
        table = np.full(256, _WRONG, np.int16)
        table[list(self.values)] = list(self.values.values())
        return table

    @cached_property
    def by_colour(self) -> dict[int, int]:
        """Class of each colour, as one number."""
        own = {_number(colour): place for place, colour in enumerate(self.colours)}
        return {_number(_WHITE_EDGE): IGNORE, **own} if own else {}


def read_labels(path: Path, coding: Coding) -> Labels:
    """Classes ``(rows, columns)``, 8 bits.

    Raises:
        UnreadableError: the file is empty, truncated or no image.
        DataError: it is no image of labels, or a value stands for nothing.
    """
    with quiet():
        labels: Labels = guarded(path, partial(_decoded, path=path, coding=coding))
    return labels


def _decoded(image: Image, *, path: Path, coding: Coding) -> Labels:
    if image.format in ("JPEG", "WEBP"):
        raise DataError(
            f"load: {path} holds labels as {image.format}, which changes values. Store them as PNG, one value a pixel."
        )
    mode = image.mode
    if mode in ("RGB", "RGBA"):
        return _of_colours(np.asarray(image.convert("RGB")), path, coding)
    if mode == "P":
        palette = np.asarray(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        return _of_palette(np.asarray(image), palette, path, coding)
    if mode in ("L", "1", "I") or mode.startswith("I;16"):
        return _of_values(np.asarray(image), path, coding)
    raise DataError(
        f"load: {path} holds labels in Pillow's mode {mode}, one grey value or palette index a pixel is wanted. "
        "Convert it to L or P."
    )


def _of_values(values: Values, path: Path, coding: Coding) -> Labels:
    wide = values.astype(np.int64)
    classes = coding.table[wide.clip(0, 255)]
    wrong = (classes == _WRONG) | (wide < 0) | (wide > 255)
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        raise DataError(
            f"load: {path} has the label {int(wide[row, column])} in row {row}, column {column}, wanted are "
            f"{coding.told}. Map it to a class or to what does not count, or name its class."
        )
    return classes.astype(np.uint8)


def _of_palette(indices: Values, palette: Values, path: Path, coding: Coding) -> Labels:
    """By index; of palettes that are known to be VOC's by colour, where every colour that is used is a class's, since
    tools that save space renumber."""
    used = np.unique(indices)
    if coding.by_colour and coding.renumbered and used.max(initial=0) < len(palette):
        known = [coding.by_colour.get(_number(palette[index]), _WRONG) for index in used.tolist()]
        if _WRONG not in known:
            table = np.zeros(256, np.uint8)
            table[used] = known
            renumbered: Labels = table[indices]
            return renumbered
    return _of_values(indices, path, coding)


def _of_colours(pixels: Values, path: Path, coding: Coding) -> Labels:
    if (pixels == pixels[..., :1]).all() and not _coloured(pixels, coding):
        return _of_values(pixels[..., 0], path, coding)
    numbers = (pixels.astype(np.int32) * (1 << 16, 1 << 8, 1)).sum(-1)
    found, places = np.unique(numbers, return_inverse=True)
    classes = [coding.by_colour.get(int(number), _WRONG) for number in found]
    if _WRONG in classes:
        number = int(found[classes.index(_WRONG)])
        row, column = np.argwhere(numbers == number)[0].tolist()
        colour = (number >> 16, number >> 8 & 255, number & 255)
        wanted = "the colours of VOC's classes or one value a pixel are" if coding.colours else "one value a pixel is"
        raise DataError(
            f"load: {path} holds colours, with {colour} in row {row}, column {column}; {wanted} wanted. Convert it to "
            "a PNG of class numbers."
        )
    labels: Labels = np.array(classes, np.uint8)[places.reshape(numbers.shape)]
    return labels


def _coloured(pixels: Values, coding: Coding) -> bool:
    """Whether greys of three equal channels are colours of classes, black and VOC's grey for a bus, say."""
    return all(_number((grey,) * 3) in coding.by_colour for grey in np.unique(pixels).tolist())


def _number(colour: Sequence[int] | Values) -> int:
    red, green, blue = (int(value) for value in colour)
    return red << 16 | green << 8 | blue
