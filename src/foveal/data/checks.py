"""Which image files cannot be read, found before training and remembered."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from foveal.cache import cache_folder
from foveal.data.listing import Files
from foveal.data.options import DataOptions
from foveal.data.picture import UnreadableError, check_picture, quiet
from foveal.errors import DataError, OptionError

FORMAT = 1
WHOLE_UP_TO = 50_000  # files; reading more before training takes longer than who trains wants to wait
REMEMBERED_FROM = 1_000  # files; fewer are read again in a second
SKIPPED = "it is named by --data.skip"
EMPTY = "the file is empty"
Reasons = dict[str, str]


def readable(sides: Sequence[Files], options: DataOptions) -> tuple[list[Files], Reasons]:
    """The files without those that cannot be read or are to be left out, and why each of these is missing.

    Args:
        sides: of one data set, under one root.
        options: ``verify`` says how they are looked at, ``skip`` which are left out.

    Raises:
        DataError: ``skip`` names what is no image here.
    """
    level = level_of(options, sum(map(len, sides)))
    skipped = to_skip(options, sides[0].root, (name for files in sides for name in files.names))
    reasons: Reasons = {}
    for files in sides:
        reasons |= {files.names[n]: EMPTY for n in np.flatnonzero(files.sizes == 0).tolist()}
    if level != "sizes":
        reasons |= _unreadable(sides, whole=level == "whole")
    reasons |= dict.fromkeys(skipped, SKIPPED)
    if not reasons:
        return list(sides), {}
    kept = [np.array([n for n, name in enumerate(files.names) if name not in reasons], np.int64) for files in sides]
    return [files.take(own) for files, own in zip(sides, kept, strict=True)], reasons


def level_of(options: DataOptions, count: int) -> str:
    """How files are looked at: as the options say, or by their number."""
    if options.verify not in (None, "whole", "ends", "sizes"):
        raise OptionError(f"load: there is no verify {options.verify!r}. Use whole, ends or sizes.")
    return options.verify or ("whole" if count <= WHOLE_UP_TO else "ends")


def to_skip(options: DataOptions, root: Path, names: Iterable[str]) -> list[str]:
    """Which of ``names`` the file of ``skip`` gives: one a line, in full or relative to ``root``.

    Raises:
        DataError: there is no such file, or it names what is not among ``names``.
    """
    if options.skip is None:
        return []
    path, known = Path(options.skip), set(names)
    if not path.is_file():
        raise DataError(f"load: there is no file {path} to name images to skip. Give one with a path on each line.")
    asked = []
    for line in filter(None, map(str.strip, path.read_text(encoding="utf-8").splitlines())):
        name = os.path.relpath(os.path.abspath(root / line), os.path.abspath(root)).replace(os.sep, "/")
        if name not in known:
            raise DataError(
                f"load: {path} names {line}, which is no image of {root}. Remove the line, or write the path as it "
                "stands under that folder."
            )
        asked.append(name)
    return asked


def _unreadable(sides: Sequence[Files], *, whole: bool) -> Reasons:
    """What reading tells, asked again only of folders where anything has changed since."""
    reasons: Reasons = {}
    if sum(map(len, sides)) < REMEMBERED_FROM:
        for files in sides:
            reasons |= look(files, range(len(files)), whole=whole)
        return reasons
    memory = Memory(f"images of {sides[0].root.resolve()}")
    seen: set[str] = set()
    try:
        for files in sides:
            for folder, own in _by_folder(files).items():
                seen.add(folder)
                chosen = np.array(own)
                state = digest([files.names[n] for n in own], files.sizes[chosen], files.times[chosen])
                told = memory.get(folder, state, whole=whole)
                if told is None:
                    told = look(files, own, whole=whole)
                    memory.put(folder, state, told, whole=whole)
                reasons |= told
        memory.keep(seen)
    except KeyboardInterrupt:
        memory.keep(seen | memory.parts.keys())  # what took minutes need not be done again
        raise
    return reasons


def _by_folder(files: Files) -> dict[str, list[int]]:
    folders: dict[str, list[int]] = {}
    for n, name in enumerate(files.names):
        folders.setdefault(name.rpartition("/")[0], []).append(n)
    return folders


def look(files: Files, chosen: Sequence[int], *, whole: bool) -> Reasons:
    """Read these files; the reasons of those that cannot be read."""

    def reason(n: int) -> str | None:
        try:
            check_picture(files.root / files.names[n], whole=whole)
        except UnreadableError as error:
            return str(error)
        return None

    with quiet(), ThreadPoolExecutor(os.cpu_count()) as pool:
        told = list(pool.map(reason, chosen))
    return {files.names[n]: why for n, why in zip(chosen, told, strict=True) if why is not None}


def digest(names: list[str], *columns: Any) -> str:
    """Changes when a name or a number does."""
    told = hashlib.sha256("\0".join(names).encode(errors="surrogateescape"))
    for column in columns:
        told.update(column.tobytes())
    return told.hexdigest()[:32]


class Memory:
    """What was found out about parts of a data set, in a file of the user's cache. Without it, all is found anew."""

    def __init__(self, name: str) -> None:
        key = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:16]
        self.path, self.changed = cache_folder() / "data" / f"{key}.json", False
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        fits = isinstance(found, dict) and [found.get("format"), found.get("of")] == [FORMAT, name]
        self.parts: dict[str, Any] = found["parts"] if fits else {}
        self.name = name

    def get(self, part: str, state: str, *, whole: bool) -> Any:
        """What is known of a part in this state, None where that is nothing or was not looked at as closely."""
        told = self.parts.get(part)
        return told["told"] if told and told["state"] == state and told["whole"] >= whole else None

    def put(self, part: str, state: str, told: Any, *, whole: bool) -> None:
        """Remember."""
        self.parts[part], self.changed = {"state": state, "whole": whole, "told": told}, True

    def keep(self, parts: set[str]) -> None:
        """Forget the other parts, and write the file, whole or not at all."""
        if not self.changed and parts >= self.parts.keys():
            return
        kept = {part: told for part, told in self.parts.items() if part in parts}
        record = {"format": FORMAT, "of": self.name, "parts": kept}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self.path.parent, delete=False, encoding="utf-8") as file:
                json.dump(record, file)
            os.replace(file.name, self.path)
        except OSError:
            pass  # a home that cannot be written to costs the time of looking again, nothing else
