"""Portable float maps, the files that hold disparities of Scene Flow and Middlebury.

``PF`` (colour) or ``Pf`` (grey), width and height, a scale whose sign tells the order of bytes (negative: little
endian), each followed by whitespace, the last by a single newline; then float32 values, the bottom row first. The
format has no comments. The size of the scale is a unit that whoever wrote the file had in mind: values are not
multiplied by it, since Middlebury writes 1/255 there beside disparities in pixels.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from foveal.errors import DataError, ShapeError

Array = npt.NDArray[Any]
LONGEST = 4096  # bytes of a header; more whitespace than that is no header
_HEADER = re.compile(rb"(P[Ff])\s+(\d{1,9})\s+(\d{1,9})\s+([-+.\deE]{1,40})(\r\n|\s)")


def read_pfm(source: str | os.PathLike[str] | bytes) -> tuple[Array, float]:
    """The values of a file, or of its bytes, and the scale without its sign.

    Returns:
        ``(rows, columns)`` or ``(rows, columns, 3)`` float32 in this machine's order of bytes, the top row first; what
        is infinite or no number in the file is so here.

    Raises:
        DataError: it cannot be opened, is no such map, or has more or fewer bytes than its header says.
    """
    raw, named = (source, "the map") if isinstance(source, bytes) else (_bytes(source), os.fspath(source))
    found = _HEADER.match(raw[:LONGEST])
    if found is None:
        raise DataError(
            f"load: {named} is no portable float map: it begins with {raw[:24]!r}, wanted are PF or Pf, width, height "
            "and scale. Fetch it anew."
        )
    columns, rows, channels = int(found[2]), int(found[3]), 3 if found[1] == b"PF" else 1
    scale, wanted = _scale(found[4], named), 4 * rows * columns * channels
    start = _start(raw, found, wanted)
    if columns * rows == 0 or len(raw) - start != wanted:
        raise DataError(
            f"load: {named} should hold {columns} x {rows} x {channels} values in {wanted:,} bytes, it has "
            f"{len(raw) - start:,}. Fetch it anew."
        )
    values = np.frombuffer(raw, np.dtype("<f4" if scale < 0 else ">f4"), offset=start).astype(np.float32)
    shape = (rows, columns) if channels == 1 else (rows, columns, 3)
    return np.ascontiguousarray(values.reshape(shape)[::-1]), abs(scale)


def check_pfm(path: Path) -> str | None:
    """Why a file is no whole map, told by its header and size; None where nothing is wrong."""
    try:
        with path.open("rb") as file:
            raw = file.read(LONGEST)
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        return f"it cannot be opened: {error.strerror}"
    found = _HEADER.match(raw)
    if found is None:
        return "the file is empty" if size == 0 else "it is no portable float map"
    wanted = 4 * int(found[2]) * int(found[3]) * (3 if found[1] == b"PF" else 1)
    if wanted and size - wanted in (found.end(), found.end() - (found[5] == b"\r\n")):
        return None
    return f"its header asks for {wanted:,} bytes of values, it has {size - found.end():,}"


def pfm_bytes(values: Array, *, scale: float = 1.0, little_endian: bool = True) -> bytes:
    """A map as a file.

    Args:
        values: ``(rows, columns)`` or ``(rows, columns, 3)``, written as float32, the top row first.
        scale: above 0; written with the sign of the order of bytes, the values are not changed by it.
        little_endian: the order of bytes.

    Raises:
        ShapeError: the values have other axes.
        DataError: the scale is not above 0.
    """
    given = np.asarray(values)
    grey = given.ndim == 2
    if given.size == 0 or not (grey or (given.ndim == 3 and given.shape[2] == 3)):
        raise ShapeError(f"write: values must be (rows, columns) or (rows, columns, 3), got {given.shape}. Reshape.")
    if not (math.isfinite(scale) and scale > 0):
        raise DataError(f"write: the scale of a map must be above 0, got {scale}. Use 1.0.")
    rows, columns = given.shape[:2]
    head = f"{'Pf' if grey else 'PF'}\n{columns} {rows}\n{-scale if little_endian else scale}\n".encode()
    return head + given[::-1].astype("<f4" if little_endian else ">f4").tobytes()


def write_pfm(path: str | os.PathLike[str], values: Array, *, scale: float = 1.0, little_endian: bool = True) -> None:
    """Write a map to a file; see ``pfm_bytes``.

    Raises:
        DataError: the file cannot be written.
    """
    told = pfm_bytes(values, scale=scale, little_endian=little_endian)
    try:
        Path(path).write_bytes(told)
    except OSError as error:
        raise DataError(f"write: {path} cannot be written: {error.strerror}. Use another path.") from error


def _start(raw: bytes, found: re.Match[bytes], wanted: int) -> int:
    """Where values begin: behind one whitespace, which after a carriage return may be that or a newline more."""
    lone_return = found[5] == b"\r\n" and len(raw) - found.end() == wanted - 1
    return found.end() - lone_return


def _scale(told: bytes, named: str) -> float:
    try:
        scale = float(told)
    except ValueError:
        scale = 0.0
    if scale == 0 or not math.isfinite(scale):
        raise DataError(f"load: {named} has the scale {told.decode()}, wanted is a number but 0. Fetch it anew.")
    return scale


def _bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"load: {path} cannot be opened: {error.strerror}. Make it readable.") from error
