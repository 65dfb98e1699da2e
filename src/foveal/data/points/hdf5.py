"""Clouds in HDF5 files, as PointNet's authors publish ModelNet40 and ShapeNet-part: a row for each cloud.

A file is read when one of its rows is asked for, by each process for itself: HDF5 keeps a file's state in the process,
so handles must not cross a fork. The published files are compressed in blocks that cut through hundreds of clouds, and
a single row of them takes 2 ms; so what fits is unpacked as a whole, and only larger files are read row by row.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from foveal.data.picture import UnreadableError
from foveal.data.points.clouds import Cloud, Clouds, Ints, check_parts, check_points
from foveal.errors import DataError

KEPT = 2**28  # bytes of points up to which a file is held in memory
AT_ONCE = 256  # rows, where all are looked at
AGAIN = "Fetch or unpack it anew."


class Hdf5Clouds(Clouds):
    """The rows of several files, one file after the other.

    Args:
        files: read in this order.
        root: folder that names of clouds are relative to.
        classes: names of the labels.
        parts: numbers of the parts of each class, by its name; rows need no ``pid`` where it is empty.
        normals: read ``normal`` too.

    Raises:
        DataError: a file is missing, damaged, lacks a dataset, or has labels that there are no classes for.
    """

    def __init__(
        self,
        files: Sequence[Path],
        root: Path,
        classes: Sequence[str],
        parts: Mapping[str, Sequence[int]],
        normals: bool,
    ) -> None:
        self.files, self.classes, self.parts, self.normals = list(files), classes, parts, normals
        self.names: list[str] = []
        self._place: list[tuple[int, int]] = []
        labels, self._sizes = [], list[int]()
        for number, path in enumerate(self.files):
            own, size = self._looked(path)
            labels.append(own)
            self.names += [f"{path.relative_to(root).as_posix()}:{row}" for row in range(len(own))]
            self._place += [(number, row) for row in range(len(own))]
            self._sizes.append(size)
        self.labels: Ints = np.concatenate(labels) if labels else np.empty(0, np.int64)
        self._handles: dict[int, Any] = {}
        self._owner = os.getpid()

    @property
    def bytes(self) -> int:
        return sum(self._sizes)

    @property
    def slow(self) -> bool:
        # From memory a process gives thousands of clouds a second.
        return max(self._sizes, default=0) > KEPT

    def __getstate__(self) -> dict[str, Any]:
        # Handles stay with the process that opened them.
        return self.__dict__ | {"_handles": {}}

    def read(self, index: int, most: int | None = None) -> Cloud:
        number, row = self._place[index]
        file, path = self._handle(number), self.files[number]
        with _explained(path, row):
            points = file["data"][row, :most]
            if self.normals:
                points = np.concatenate((points, file["normal"][row, :most]), 1)
            parts = file["pid"][row, :most].astype(np.int64) if self.parts else None
        self._check(points, parts, index)
        return Cloud(points, parts)

    def _check(self, points: Any, parts: Ints | None, index: int) -> None:
        number, row = self._place[index]
        where = f"{self.files[number]}, row {row} ({self.names[index]}),"
        check_points(points, where)
        if parts is not None:
            category = self.classes[self.labels[index]]
            check_parts(parts, self.parts[category], category, where)

    def check(self) -> None:
        first = 0
        for path in self.files:
            with opened(path) as file:
                rows = len(file["data"])
                for start in range(0, rows, AT_ONCE):
                    chosen = slice(start, start + AT_ONCE)
                    with _explained(path, start):
                        read = [file["data"][chosen]] + ([file["normal"][chosen]] if self.normals else [])
                        pid = np.asarray(file["pid"][chosen], np.int64) if self.parts else None
                    for offset, points in enumerate(np.concatenate(read, 2)):
                        self._check(points, None if pid is None else pid[offset], first + start + offset)
            first += rows

    def _handle(self, number: int) -> Any:
        if self._owner != os.getpid():
            self._handles, self._owner = {}, os.getpid()
        if number not in self._handles:
            self._handles[number] = self._unpacked(number)
        return self._handles[number]

    def _unpacked(self, number: int) -> Any:
        """The datasets of a file as arrays, or where they are large the open file."""
        path = self.files[number]
        file = _open(path)
        if file["data"].size * file["data"].dtype.itemsize > KEPT:
            return file
        names = ["data", *(["normal"] if self.normals else []), *(["pid"] if self.parts else [])]
        with file, _explained(path, None):
            return {name: file[name][()] for name in names}

    def _looked(self, path: Path) -> tuple[Ints, int]:
        """Labels of a file and bytes of its data, after all shapes were looked at."""
        with opened(path) as file:
            data = _dataset(file, path, "data", "f")
            if data.ndim != 3 or data.shape[2] != 3 or 0 in data.shape[:2]:
                raise DataError(f"load: {path} must hold data of (clouds, points, 3), got {data.shape}. {AGAIN}")
            shape = {"label": (data.shape[0],)}
            if self.normals:
                shape["normal"] = data.shape
            if self.parts:
                shape["pid"] = data.shape[:2]
            for name, wanted in shape.items():
                found = _dataset(file, path, name, "f" if name == "normal" else "iu").shape
                if found not in (wanted, (*wanted, 1)) or (len(found) > len(wanted) and name != "label"):
                    raise DataError(
                        f"load: {path} holds data of {data.shape}, so {name} must be {wanted}, got {found}. {AGAIN}"
                    )
            with _explained(path, None):
                labels = np.asarray(file["label"][()], np.int64).reshape(-1)
            return self._in_range(labels, path), data.size * data.dtype.itemsize

    def _in_range(self, labels: Ints, path: Path) -> Ints:
        wrong = (labels < 0) | (labels >= len(self.classes))
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(
                f"load: {path} has label {int(labels[row])} in row {row}, labels of {len(self.classes)} classes are 0 "
                f"to {len(self.classes) - 1}. {AGAIN}"
            )
        return labels


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An HDF5 file for reading.

    Raises:
        DataError: it is missing, empty, no HDF5 file, or cut off; or what is done with it meets damage.
    """
    with _open(path) as file:
        try:
            yield file
        except (DataError, UnreadableError):
            raise
        except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise DataError(f"load: {path} is no whole HDF5 file: {_reason(error)}. {AGAIN}") from error


def _open(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"load: {path} needs h5py to be read: pip install 'foveal[points]'.") from error
    try:
        if path.stat().st_size == 0:
            raise DataError(f"load: {path} is empty. {AGAIN}")
        return h5py.File(path, "r")
    except FileNotFoundError as error:
        raise DataError(f"load: there is no {path}. {AGAIN}") from error
    except OSError as error:
        raise DataError(f"load: {path} is no whole HDF5 file: {_reason(error)}. {AGAIN}") from error


def _dataset(file: Any, path: Path, name: str, kinds: str) -> Any:
    import h5py

    found = file.get(name) if name in file else None
    if not isinstance(found, h5py.Dataset):
        held = ", ".join(sorted(file)) or "nothing"
        raise DataError(f"load: {path} lacks the dataset {name!r}, it holds {held}. {AGAIN}")
    if found.dtype.kind not in kinds:
        wanted = "floating point numbers" if kinds == "f" else "integers"
        raise DataError(f"load: {path} must hold {wanted} in {name!r}, got {found.dtype}. {AGAIN}")
    return found


@contextmanager
def _explained(path: Path, row: int | None) -> Iterator[None]:
    """Damage of what a file says it holds, as an error a user can act on."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        where = "" if row is None else f" from row {row} on"
        raise DataError(f"load: {path} cannot be read{where}: {_reason(error)}. {AGAIN}") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
