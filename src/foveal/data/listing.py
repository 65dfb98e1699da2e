"""Lists of image files that stay small and quick at a million files: packed names, and one look at each folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from foveal.data.picture import SUFFIXES

Numbers = np.ndarray[Any, np.dtype[Any]]


class Paths(Sequence[Path]):
    """Many paths under one folder in one piece of memory.

    A list of a million strings is copied, page by page, into every worker process that counts references to them.
    """

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        packed = [os.fsencode(name) for name in names]
        self.root, self.packed = root, b"".join(packed)
        self._ends = np.cumsum([0, *map(len, packed)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...
    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return self.root / os.fsdecode(self.packed[self._ends[place] : self._ends[place + 1]])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Paths) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass
class Files:
    """Image files under one folder, with their labels, and what tells whether one has changed."""

    root: Path
    names: list[str]
    """Relative to ``root``."""
    labels: Numbers
    sizes: Numbers
    """In bytes."""
    times: Numbers
    """Of the last change, in nanoseconds."""

    def __len__(self) -> int:
        return len(self.names)

    def take(self, chosen: Numbers) -> Files:
        """Those at these indices."""
        names = [self.names[n] for n in chosen.tolist()]
        return Files(self.root, names, self.labels[chosen], self.sizes[chosen], self.times[chosen])

    def paths(self) -> Paths:
        return Paths(self.root, self.names)


Entry = tuple[str, int, int]


def files_of(root: Path, folders: Sequence[str]) -> Files:
    """The images in each of ``folders``, at any depth; those of the n-th folder have label n, sorted by name.

    Files are looked at in several threads, since a network's file system answers one question slowly and many at once
    no slower.
    """
    with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
        found = list(pool.map(lambda folder: images_under(root, folder), folders))
    labels = np.repeat(np.arange(len(folders), dtype=np.int32), [len(entries) for entries in found])
    return as_files(root, [entry for entries in found for entry in entries], labels)


def as_files(root: Path, entries: Sequence[Entry], labels: Numbers) -> Files:
    """Entries as the columns of ``Files``."""
    sizes, times = (np.array([entry[part] for entry in entries], np.int64) for part in (1, 2))
    return Files(root, [name for name, _, _ in entries], labels, sizes, times)


def images_under(root: Path, folder: str) -> list[Entry]:
    """Name relative to ``root``, size and time of every file with the suffix of an image; hidden ones are none."""
    found: list[Entry] = []
    left, deep = [folder], False
    while left:
        inside = left.pop()
        before = f"{inside}/" if inside else ""
        with os.scandir(root / inside) as entries:
            for entry in entries:
                name = entry.name
                if entry.is_dir(follow_symlinks=False):
                    left.append(before + name)
                elif name[name.rfind(".") :].lower() in SUFFIXES and name[0] != ".":
                    found.append((before + name, *_changed(entry)))
        deep = deep or bool(left)
    # By folders, then names: a slash would come after some of the characters of names.
    return sorted(found, key=lambda entry: entry[0].split("/")) if deep else sorted(found)


def _changed(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        told = entry.stat()
    except OSError:
        return 0, 0  # a link to nothing counts as an empty file, and is told as one
    return told.st_size, told.st_mtime_ns
