"""Disparity maps as files hold them, made one thing: pixels to the left, float32, NaN where nothing is known.

A disparity d says that what the left image shows at column x is at column x - d of the right one.

========================  =======================================================================================
file                      what is not known
========================  =======================================================================================
``.pfm``                  what is infinite or no number; 0 is a disparity, of what is infinitely far
``.png``, 16 bits, grey   0; other values are pixels times 256 (KITTI)
========================  =======================================================================================

Some sets hold the negative (the displacement from left to right): where most values of a map are below 0, all change
their sign. Values of the other sign are not known.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from foveal.data.stereo.pfm import read_pfm, write_pfm
from foveal.errors import DataError, OptionError, ShapeError

Array = npt.NDArray[Any]
STEPS = 256  # of a 16-bit PNG in a pixel
SUFFIXES = (".pfm", ".png")


def read_disparity(path: str | os.PathLike[str]) -> Array:
    """``(rows, columns)`` float32 of a file, see above; of a colour map the first channel, where all are equal.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    kind = Path(path).suffix.lower()
    if kind not in SUFFIXES:
        raise DataError(f"load: disparities are read from .pfm and .png, got {os.fspath(path)}. Convert the file.")
    return _from_png(path) if kind == ".png" else _from_pfm(path)


def write_disparity(path: str | os.PathLike[str], disparity: Array) -> None:
    """Write ``(rows, columns)`` pixels as the name ends: .pfm (NaN stays NaN) or .png (NaN is 0, steps of 1/256 pixel).

    Raises:
        OptionError: the name ends in something else, or a disparity does not fit 16 bits.
        ShapeError: the map has other axes.
        DataError: the file cannot be written.
    """
    kind, values = Path(path).suffix.lower(), np.asarray(disparity)
    if kind not in SUFFIXES:
        raise OptionError(f"write: the file must end in .pfm or .png, got {os.fspath(path)!r}.")
    if values.ndim != 2 or values.size == 0:
        raise ShapeError(f"write: a disparity must be (rows, columns), got {values.shape}. Write one map at a time.")
    if kind == ".pfm":
        write_pfm(path, values)
        return
    from PIL import Image

    try:
        Image.fromarray(_sixteen_bits(values)).save(path, format="PNG")
    except OSError as error:
        raise DataError(f"write: {path} cannot be written: {error.strerror}. Use another path.") from error


def known(values: Array) -> Array:
    """Raw values with NaN for what is not known, and the sign made that of pixels to the left."""
    values = np.where(np.isfinite(values), values, np.nan).astype(np.float32)
    below, above = int((values < 0).sum()), int((values > 0).sum())
    values = -values if below > above else values
    # -0.0 would be a 0 that looks odd in a file.
    return np.where(values >= 0, np.abs(values), np.float32(np.nan))


def _from_pfm(path: str | os.PathLike[str]) -> Array:
    values, _ = read_pfm(path)
    if values.ndim == 3:
        if not (np.array_equal(values[..., 0], values[..., 1], equal_nan=True)
                and np.array_equal(values[..., 0], values[..., 2], equal_nan=True)):  # fmt: skip
            raise DataError(f"load: {path} has three channels that differ, a disparity has one. Give another file.")
        values = values[..., 0]
    return known(values)


def _from_png(path: str | os.PathLike[str]) -> Array:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(Path(path).read_bytes())) as image:
            mode, kind = image.mode, image.format
            raw = np.asarray(image)
    # Decoders raise nearly anything on damaged files.
    except Exception as error:
        why = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
        raise DataError(f"load: {path} is no whole image: {why or type(error).__name__}. Fetch it anew.") from error
    if kind != "PNG" or not mode.startswith("I"):
        raise DataError(
            f"load: {path} must be a grey PNG of 16 bits, disparities times {STEPS}, it is a {kind} of mode {mode}. "
            "Give the disparities, not a picture of them."
        )
    return np.where(raw > 0, raw.astype(np.float32) / STEPS, np.float32(np.nan))


def _sixteen_bits(values: Array) -> Array:
    told = values[~np.isnan(values)]
    low, high = told.min(initial=0.0), told.max(initial=0.0)
    if high * STEPS > 65535.5 or low < 0:
        raise OptionError(
            f"write: a 16-bit PNG holds disparities from 0 to {65535 / STEPS:.3f} pixels, got {low:g} to {high:g}. "
            "Write a .pfm."
        )
    # What is known and rounds to 0 is kept known: 0 says that nothing is.
    steps = np.clip(np.round(np.nan_to_num(values) * STEPS), 1, 65535)
    return np.where(np.isnan(values), 0, steps).astype(np.uint16)
