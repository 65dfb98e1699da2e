"""One cloud file of any kind that people have: text, NumPy, HDF5 or PLY in its text form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from foveal.data.picture import UnreadableError
from foveal.data.points.clouds import Floats
from foveal.data.points.hdf5 import opened
from foveal.data.points.text import TextCloud, numbers, read_rows
from foveal.errors import DataError

SUFFIXES = {".txt", ".xyz", ".csv", ".pts", ".npy", ".h5", ".hdf5", ".ply"}
MOST_HEADER = 1000  # lines


class FileCloud(NamedTuple):
    """A cloud of a file.

    Attributes:
        name: the file's, with the row where there are several.
        points: ``(n, channels)``; None where there is an error.
        label: where the file has one.
        error: why this one, of several, is no cloud.
    """

    name: str
    points: Floats | None
    label: int | None = None
    error: str | None = None


def read_clouds(path: Path, channels: int) -> Iterator[FileCloud]:
    """The clouds of a file: one, or of HDF5 and three-axis NumPy files a row each.

    Args:
        path: its suffix tells the format.
        channels: numbers of a point that are wanted, coordinates first; further ones are passed over.

    Raises:
        UnreadableError: it is empty, damaged, of another format, or has too few numbers, points or finite ones. Of
            several clouds each has its own error.
    """
    try:
        several, labels = _read(path)
    except (TextCloud, DataError) as error:
        raise UnreadableError(str(error).removeprefix("load: ").rstrip(".")) from error
    except OSError as error:
        raise UnreadableError(error.strerror or type(error).__name__) from error
    if several.ndim == 2:
        yield FileCloud(str(path), _checked(several, channels))
        return
    for row, points in enumerate(several):
        name, label = f"{path}:{row}", None if labels is None else int(labels[row])
        try:
            yield FileCloud(name, _checked(points, channels), label)
        except UnreadableError as error:
            yield FileCloud(name, None, label, str(error))


def _read(path: Path) -> tuple[Any, Any]:
    """``(n, columns)``, or ``(clouds, n, columns)``; labels of the clouds, or None."""
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise UnreadableError(f"clouds are read from {', '.join(sorted(SUFFIXES))}, got {kind or 'no suffix'}")
    if path.stat().st_size == 0:
        raise UnreadableError("the file is empty")
    if kind in (".h5", ".hdf5"):
        return _hdf5(path)
    if kind == ".npy":
        return _numpy(path), None
    return _ply(path) if kind == ".ply" else read_rows(path, separator=_separator(path)), None


def _separator(path: Path) -> str | None:
    with open(path, encoding="utf-8", errors="replace") as file:
        first = next((line for line in file if line.strip() and not line.startswith("#")), "")
    return "," if "," in first else ";" if ";" in first else None


def _hdf5(path: Path) -> tuple[Any, Any]:
    with opened(path) as file:
        if "data" not in file or getattr(file["data"], "ndim", 0) != 3:
            raise UnreadableError(f"it must hold data of (clouds, points, 3), it holds {', '.join(file) or 'nothing'}")
        try:
            data = np.asarray(file["data"][()], np.float64)
            labels = np.asarray(file["label"][()]).reshape(-1) if "label" in file else None
            return data, labels if labels is not None and len(labels) == len(data) else None
        except (OSError, ValueError) as error:
            raise UnreadableError(f"its data cannot be read: {' '.join(str(error).split())[:200]}") from error


def _numpy(path: Path) -> Any:
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UnreadableError(f"it is no NumPy array of numbers: {' '.join(str(error).split())[:120]}") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu" or found.ndim not in (2, 3):
        told = f"{found.dtype} of {found.shape}" if isinstance(found, np.ndarray) else "an archive"
        raise UnreadableError(f"it must hold numbers of (points, 3) or (clouds, points, 3), got {told}")
    return found.astype(np.float64)


def _ply(path: Path) -> Any:
    """The vertices of a PLY file in its text form; x, y, z, then normals where it has them."""
    with open(path, encoding="utf-8", errors="replace") as file:
        elements, properties = _header(file)
        before = 0
        for name, count in elements:
            if name == "vertex":
                break
            before += count
        else:
            raise UnreadableError("its header names no element vertex")
        wanted = [name for name in ("x", "y", "z", "nx", "ny", "nz") if name in properties]
        if wanted[:3] != ["x", "y", "z"]:
            raise UnreadableError(f"its vertices must have x, y and z, they have {', '.join(properties) or 'nothing'}")
        try:
            rows = numbers(file, skiprows=before, max_rows=count)
        except ValueError as error:
            raise UnreadableError(f"a vertex is no row of numbers: {' '.join(str(error).split())[:120]}") from error
    if rows.shape != (count, len(properties)):
        raise UnreadableError(
            f"its header tells of {count} vertices of {len(properties)} numbers, got {rows.shape[0]} of {rows.shape[1]}"
        )
    return rows[:, [properties.index(name) for name in wanted]]


def _header(file: Any) -> tuple[list[tuple[str, int]], list[str]]:
    """Elements in order with their numbers, and the vertices' properties."""
    elements: list[tuple[str, int]] = []
    properties: list[str] = []
    if file.readline().strip() != "ply":
        raise UnreadableError("it does not begin with ply")
    for _, line in zip(range(MOST_HEADER), file, strict=False):
        words = line.split()
        if words[:1] == ["format"] and words[1:2] != ["ascii"]:
            raise UnreadableError(f"it is PLY of the form {' '.join(words[1:2])}. Save it as ascii")
        if words[:1] == ["element"] and len(words) == 3 and words[2].isdigit():
            elements.append((words[1], int(words[2])))
        elif words[:1] == ["property"] and elements and elements[-1][0] == "vertex":
            properties.append(words[-1])
        elif words == ["end_header"]:
            return elements, properties
    raise UnreadableError("its header does not end")


def _checked(points: Any, channels: int) -> Floats:
    if points.shape[0] == 0:
        raise UnreadableError("it holds no points")
    if points.shape[1] < channels:
        raise UnreadableError(f"points must have {channels} numbers, got an array of {points.shape}")
    if points.shape[0] == 3 < points.shape[1] and points.shape[1] > 7:
        raise UnreadableError(f"points must be (n, {channels}), got {points.shape}. Turn it around by .T")
    kept: Floats = points[:, :channels].astype(np.float32)
    broken = ~np.isfinite(kept).all(1)
    if broken.any():
        first = int(broken.argmax())
        raise UnreadableError(
            f"{int(broken.sum())} of {len(kept)} points are no finite numbers, first is point {first}"
        )
    return kept
