"""Masks as COCO writes them: run lengths down the columns, compressed or not, and polygons, which it fills its own way.

The arithmetic is that of faster-coco-eval, which agrees with COCO's to the pixel.
"""

from __future__ import annotations

from functools import cache
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from foveal.errors import DataError

Rle = dict[str, Any]
"""``size``, rows and columns, and ``counts``, the compressed run lengths as text."""
FARTHEST = 1e7
"""Pixels from the image, beyond which a place of a polygon is none."""
Mask = npt.NDArray[np.uint8]


@cache
def mask_api() -> Any:
    """The module that does it.

    Raises:
        DataError: it is not installed.
    """
    try:
        from faster_coco_eval.core import mask
    except ImportError as error:
        raise DataError(
            "detection: masks and average precision need faster-coco-eval, which is not installed. "
            "Use pip install 'foveal[detect]'."
        ) from error
    return mask


def encode(mask: npt.NDArray[Any]) -> Rle:
    """A mask ``(rows, columns)``, anything but zero within, for JSON."""
    return _text(mask_api().encode(np.asfortranarray(mask != 0).view(np.uint8)))


def decode(rle: Rle) -> Mask:
    """``(rows, columns)``, ones within.

    Raises:
        ValueError: the runs are not of that many pixels.
    """
    return np.ascontiguousarray(mask_api().decode(rle))


def area(rle: Rle) -> int:
    """Pixels within."""
    return int(mask_api().area(rle))


def from_segmentation(segmentation: Any, rows: int, columns: int) -> Rle:
    """An annotation's ``segmentation``, whichever of the three forms it has.

    Raises:
        ValueError: it is of none of them, or of another size.
    """
    check_segmentation(segmentation, rows, columns)
    return _text(mask_api().segmToRle(segmentation, columns, rows))


def check_segmentation(segmentation: Any, rows: int, columns: int) -> None:
    """Find what is wrong without filling anything.

    Raises:
        ValueError: it is none of an image of that size.
    """
    if isinstance(segmentation, dict):
        _check_runs(segmentation, rows, columns)
    else:
        _check_polygons(segmentation)


def _check_runs(rle: dict[str, Any], rows: int, columns: int) -> None:
    counts, size = rle.get("counts"), rle.get("size")
    if not isinstance(counts, (str, bytes, list)):
        raise ValueError("its runs have no counts")
    if not isinstance(size, (list, tuple)) or list(size) != [rows, columns]:
        raise ValueError(f"its runs are of {size} rows and columns, the image has {[rows, columns]}")
    runs = counts if isinstance(counts, list) else _runs(counts)
    if not all(isinstance(run, int) and run >= 0 for run in runs):
        raise ValueError("a run is no count of pixels")
    if sum(runs) != rows * columns:
        raise ValueError(f"its runs are of {sum(runs)} pixels, the image has {rows * columns}")


def _runs(counts: str | bytes) -> list[int]:
    """What compressed runs say: digits of 5 bits from the lowest one on, each run the difference from the last but one.

    The module that fills them takes runs that end too soon for others, where COCO's code reads what follows in memory.
    """
    runs, value, bits = list[int](), 0, 0
    for letter in counts.encode() if isinstance(counts, str) else counts:
        digit = letter - 48
        if not 0 <= digit < 64:
            raise ValueError("its runs have a letter that compressed ones do not")
        value, bits = value | (digit & 31) << bits, bits + 5
        if digit & 32:
            continue
        value -= (digit & 16) << (bits - 4)  # the highest bit is the sign
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = bits = 0
    if bits:
        raise ValueError("its runs end within one")
    return runs


def _check_polygons(polygons: Any) -> None:
    if not isinstance(polygons, list) or not polygons:
        raise ValueError("it is neither polygons nor runs")
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon needs three points at least, each with x and y")
        if not _numbers(polygon):
            raise ValueError("a polygon has a place that is no number")


def _numbers(polygon: list[Any]) -> bool:
    try:
        # Files have tens of millions of these, so nothing is asked of each of them in Python.
        return min(polygon) > -FARTHEST and max(polygon) < FARTHEST and isfinite(sum(polygon))
    except TypeError:
        return False


def _text(rle: Rle) -> Rle:
    counts = rle["counts"]
    return {
        "size": [int(side) for side in rle["size"]],
        "counts": counts.decode() if isinstance(counts, bytes) else counts,
    }
