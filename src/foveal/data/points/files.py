"""One cloud file of any kind that people have: text, NumPy, HDF5, PLY, and OFF surfaces."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from foveal.data.picture import UnreadableError
from foveal.data.points.hdf5 import opened
from foveal.data.points.off import read_off
from foveal.data.points.ply import read_ply
from foveal.data.points.tables import read_table
from foveal.data.points.text import TextCloud
from foveal.errors import DataError

SUFFIXES = {".txt", ".xyz", ".csv", ".pts", ".npy", ".npz", ".h5", ".hdf5", ".ply", ".off"}
NUMBERS = ("x", "y", "z", "nx", "ny", "nz")
POINTS = "points"
"""The array of an archive of several that is read."""
Doubles = npt.NDArray[np.float64]


class FileCloud(NamedTuple):
    """A cloud of a file.

    Attributes:
        name: the file's, with the row where there are several.
        points: ``(n, channels)``, in float64, so that places on a map keep their digits until they are moved to the
            origin; None where there is an error.
        label: where the file has one.
        error: why this one, of several, is no cloud.
    """

    name: str
    points: Doubles | None
    label: int | None = None
    error: str | None = None


def read_clouds(path: Path, channels: int, *, drawn: int, seed: int = 0) -> Iterator[FileCloud]:
    """The clouds of a file: one, or of HDF5 and three-axis NumPy files a row each.

    Args:
        path: its suffix tells the format.
        channels: numbers of a point that are wanted, coordinates before normals; further ones are passed over.
        drawn: points that are drawn from a surface.
        seed: of these.

    Raises:
        UnreadableError: it is empty, damaged, of another format, or has too few numbers, points or finite ones. Of
            several clouds each has its own error.
    """
    try:
        several, labels = _read(path, NUMBERS[:channels], drawn, seed)
    except (TextCloud, DataError) as error:
        raise UnreadableError(str(error).removeprefix("load: ").rstrip(".")) from error
    except OSError as error:
        raise UnreadableError(error.strerror or type(error).__name__) from error
    except MemoryError as error:
        raise UnreadableError("it tells of more numbers than the memory holds") from error
    if several.ndim == 2:
        yield FileCloud(str(path), _checked(several, channels))
        return
    for row, points in enumerate(several):
        name, label = f"{path}:{row}", None if labels is None else int(labels[row])
        try:
            yield FileCloud(name, _checked(points, channels), label)
        except UnreadableError as error:
            yield FileCloud(name, None, label, str(error))


def _read(path: Path, wanted: Sequence[str], drawn: int, seed: int) -> tuple[Any, Any]:
    """``(n, columns)``, or ``(clouds, n, columns)``; labels of the clouds, or None."""
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        known = f"clouds are read from {', '.join(sorted(SUFFIXES))}, got {kind or 'no suffix'}"
        raise UnreadableError(f"{known}. Save it as .ply, which Open3D, CloudCompare and MeshLab do")
    if path.stat().st_size == 0:
        raise UnreadableError("the file is empty")
    if kind in (".h5", ".hdf5"):
        return _hdf5(path)
    if kind in (".npy", ".npz"):
        return _numpy(path), None
    if kind == ".off":
        return read_off(path, drawn, seed), None
    return (read_ply if kind == ".ply" else read_table)(path, wanted), None


def _hdf5(path: Path) -> tuple[Any, Any]:
    with opened(path) as file:
        if "data" not in file or getattr(file["data"], "ndim", 0) != 3 or file["data"].dtype.kind not in "fiu":
            raise UnreadableError(f"it must hold data of (clouds, points, 3), it holds {', '.join(file) or 'nothing'}")
        data = np.asarray(file["data"][()])
        labels = np.asarray(file["label"]).reshape(-1) if hasattr(file.get("label"), "ndim") else None
    told = labels is not None and len(labels) == len(data) and labels.dtype.kind in "iu"
    return data, labels if told else None


def _numpy(path: Path) -> Any:
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = np.load(file, allow_pickle=False)
            found = found if isinstance(found, np.ndarray) else _of_archive(found)
    except (MemoryError, OSError, UnreadableError):
        raise
    except Exception as error:  # NumPy evaluates what a header says, and archives fail in many ways
        raise UnreadableError(f"it is no NumPy array of numbers: {' '.join(str(error).split())[:120]}") from error
    if found.dtype.kind not in "fiu" or found.ndim not in (2, 3):
        told = f"{found.dtype} of {found.shape}"
        raise UnreadableError(f"it must hold numbers of (points, 3) or (clouds, points, 3), got {told}")
    return found


def _of_archive(opened: Any) -> Any:
    """The only array of an archive, or the one that is called points."""
    with opened as archive:
        names = archive.files
        if POINTS not in names and len(names) != 1:
            raise UnreadableError(f"it must hold one array, or one named {POINTS}, it holds {', '.join(names)}")
        return archive[POINTS if POINTS in names else names[0]]


def _checked(points: Any, channels: int) -> Doubles:
    if points.shape[0] == 0:
        raise UnreadableError("it holds no points")
    if points.shape[1] < channels:
        raise UnreadableError(f"points must have {channels} numbers, got an array of {points.shape}")
    if points.shape[0] == 3 < points.shape[1] and points.shape[1] > 7:
        raise UnreadableError(f"points must be (n, {channels}), got {points.shape}. Turn it around by .T")
    kept = points[:, :channels].astype(np.float64)
    with np.errstate(over="ignore"):
        broken = ~np.isfinite(kept.astype(np.float32)).all(1)
    if broken.any():
        first = int(broken.argmax())
        raise UnreadableError(
            f"{int(broken.sum())} of {len(kept)} points are no finite numbers, first is point {first}"
        )
    return kept
