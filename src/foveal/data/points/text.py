"""Clouds in text files, a point a line, as PointNet++'s authors publish ModelNet40 and ShapeNet-part with normals."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from foveal.data.points.clouds import Cloud, Clouds, Ints, check_parts, check_points
from foveal.errors import DataError

PARSED = 16 * 2**20  # bytes of a set from which on worker processes save more than they cost
REPAIR = "Repair it, or leave it out by a line of --data.skip's file."


class TextCloud(ValueError):
    """Why a file holds no cloud."""


def read_rows(
    path: Path,
    *,
    most: int | None = None,
    separator: str | None = None,
    skip: int = 0,
    columns: Sequence[int] | None = None,
) -> Any:
    """Numbers ``(lines, columns)`` of a file, float64.

    Args:
        path: a text file; lines that begin with # are passed over.
        most: lines that are read.
        separator: between numbers; spaces or tabs where None.
        skip: lines on top that are passed over.
        columns: which are read; all where None.

    Raises:
        TextCloud: it is empty, or a line is not like the others or holds something else than numbers.
        OSError: it cannot be opened.
    """
    if path.stat().st_size == 0:
        raise TextCloud("the file is empty")
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            rows = numbers(file, delimiter=separator, max_rows=most, skiprows=skip, usecols=columns)
    except ValueError as error:
        raise TextCloud(_plain(str(error), path, skip)) from error
    if rows.size == 0:
        raise TextCloud("the file holds no points")
    return rows


def numbers(file: Any, **asked: Any) -> Any:
    """Rows of numbers of an opened file; of none an empty array, without a warning beside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return np.loadtxt(file, ndmin=2, **asked)


def _plain(told: str, path: Path, skip: int) -> str:
    """NumPy's reason in the words of a file: it counts rows of numbers alone, from 0 or from 1."""
    wrong = re.search(r"could not convert string (.*) to float64 at row (\d+), column (\d+)", told)
    if wrong:
        return f"line {_line(path, skip, int(wrong[2]))} holds {wrong[1]} where a number is wanted"
    changed = re.search(r"number of columns changed from (\d+) to (\d+) at row (\d+)", told)
    if changed:
        row = int(changed[3]) - 1
        return f"line {_line(path, skip, row)} holds {changed[2]} numbers, those before {changed[1]}"
    short = re.search(r"invalid column index (\d+) at row (\d+) with (\d+) columns", told)
    if short:
        wanted = int(short[1]) + 1
        return f"line {_line(path, skip, int(short[2]) - 1)} holds {short[3]} numbers, {wanted} or more are wanted"
    return " ".join(told.split()).rstrip(".")[:200]


def _line(path: Path, skip: int, row: int) -> int:
    """Where in a file a row of numbers stands, counted from 1."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        told = (n for n, line in enumerate(file, start=1) if n > skip and line.partition("#")[0].strip())
        return next(islice(told, row, None), row + 1)


class TextClouds(Clouds):
    """A file for each cloud: coordinates, normals and, where parts are known, a part on every line.

    Args:
        root: folder that names are relative to.
        names: files under it.
        labels: class or category of each.
        classes: names of the labels.
        parts: numbers of the parts of each class; empty where lines have none.
        separator: between numbers.
        normals: keep the normals.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        labels: Sequence[int],
        classes: Sequence[str],
        *,
        parts: Mapping[str, Sequence[int]],
        separator: str | None,
        normals: bool,
    ) -> None:
        self.root, self.names, self.classes, self.parts = root, list(names), classes, parts
        self.labels: Ints = np.array(labels, np.int64)
        self.separator, self.normals = separator, normals
        self.columns = 7 if parts else 6
        self.sizes = [self._size(name) for name in self.names]
        """Bytes of each file, 0 where it cannot be found."""

    @property
    def bytes(self) -> int:
        return sum(self.sizes)

    @property
    def slow(self) -> bool:
        return self.bytes > PARSED

    def _size(self, name: str) -> int:
        try:
            return (self.root / name).stat().st_size
        except OSError:
            return 0  # it may be one that is left out

    def read(self, index: int, most: int | None = None) -> Cloud:
        path = self.root / self.names[index]
        where = f"{path} ({self.names[index]})"  # by the second name it is left out
        try:
            rows = read_rows(path, most=most, separator=self.separator)
        except TextCloud as error:
            raise DataError(f"load: {where} is no cloud: {error}. {REPAIR}") from error
        except FileNotFoundError as error:
            raise DataError(
                f"load: there is no {where}, which the lists name. Unpack the archive anew, or leave it out by a line "
                "of --data.skip's file."
            ) from error
        except OSError as error:
            raise DataError(f"load: {where} cannot be opened: {error.strerror}. Make it readable.") from error
        if rows.shape[1] != self.columns:
            raise DataError(f"load: {where} must have {self.columns} numbers a line, got {rows.shape[1]}. {REPAIR}")
        points = rows[:, : 6 if self.normals else 3]
        check_points(points, where)
        return Cloud(points, self._parts_of(rows[:, 6], index, where) if self.parts else None)

    def _parts_of(self, told: Any, index: int, where: str) -> Ints:
        # What is no whole number is no part: it must not become one by rounding.
        whole = np.where(np.isfinite(told) & (told == np.round(told)), told, -1).astype(np.int64)
        category = self.classes[self.labels[index]]
        check_parts(whole, self.parts[category], category, where)
        return whole

    def check(self) -> None:
        for index in range(len(self)):
            self.read(index)

    def look(self, index: int) -> None:
        if self.sizes[index] == 0:
            self.read(index)
