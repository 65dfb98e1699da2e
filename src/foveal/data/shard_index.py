"""Where each image of a tar file in WebDataset's layout lies, found once for each file and remembered.

Layout: members whose names are equal up to the first dot of the last part are one sample; its image is the one that
ends in jpg, jpeg, png or webp, its class the number in cls, or ``label`` or ``cls`` in json.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from foveal.cache import cache_folder
from foveal.data.listing import Numbers
from foveal.data.picture import UnreadableError, check_picture
from foveal.errors import DataError

FORMAT = 1
IMAGES = ("jpg", "jpeg", "png", "webp")
LABELS = ("label", "cls")  # of a sample's JSON
MOST_LABEL = 2**31 - 1
LEVELS = ("sizes", "ends", "whole")
HEAD, TAIL = 16384, 12  # bytes: most headers fit, and the mark of an image's end
BLOCK = 512  # of the tar format


@dataclass
class Shard:
    """The images of one tar file, in its order."""

    names: Numbers
    """Member names, UTF-8, each ended by a zero byte."""
    offsets: Numbers
    """Of an image's first byte in the file."""
    sizes: Numbers
    """In bytes."""
    labels: Numbers
    """Classes."""
    left_out: Numbers
    """JSON, UTF-8: member to why it cannot be used."""

    def members(self) -> list[str]:
        text = self.names.tobytes().decode(errors="surrogateescape")
        return text.split("\0")[:-1]

    def reasons(self) -> dict[str, str]:
        told: dict[str, str] = json.loads(self.left_out.tobytes())
        return told


def shard(path: Path, level: str) -> Shard:
    """The index of one tar file, from the cache where the file is as it was and was looked at as closely.

    Raises:
        DataError: it is no whole, uncompressed tar file, or a sample is described twice.
    """
    told = path.stat()
    memory = _memory(path)
    state = f"{FORMAT} {path.resolve()} {told.st_size} {told.st_mtime_ns}"
    for known in LEVELS[LEVELS.index(level) :]:
        if (found := _recall(memory, f"{state} {known}")) is not None:
            return found
    built = _build(path, level)
    _remember(memory, f"{state} {level}", built)
    return built


def _build(path: Path, level: str) -> Shard:
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    for member in _members(path):
        folder, _, name = member.name.rpartition("/")
        key, _, suffix = name.partition(".")
        if not suffix or not key:
            continue
        parts = samples.setdefault(f"{folder}/{key}" if folder else key, {})
        if suffix.lower() in parts:
            raise DataError(
                f"load: {path} holds {member.name} twice, and a sample has one of each. Write the shard anew."
            )
        parts[suffix.lower()] = member
    rows: list[tuple[str, int, int, int]] = []
    reasons: dict[str, str] = {}
    with path.open("rb") as file:
        for key, parts in samples.items():
            image = next((parts[suffix] for suffix in IMAGES if suffix in parts), None)
            try:
                if image is None:
                    raise UnreadableError(f"the sample has {', '.join(sorted(parts))} and no {', '.join(IMAGES)}")
                label = _label(file.fileno(), parts)
                _check(file.fileno(), image, level)
            except UnreadableError as error:
                reasons[image.name if image is not None else key] = str(error)
                continue
            rows.append((image.name, image.offset_data, image.size, label))
    names = "".join(f"{name}\0" for name, *_ in rows).encode(errors="surrogateescape")
    offsets, sizes, labels = (np.array([row[part] for row in rows], np.int64) for part in (1, 2, 3))
    left_out = np.frombuffer(json.dumps(reasons).encode(), np.uint8)
    return Shard(np.frombuffer(names, np.uint8), offsets, sizes, labels, left_out)


def _members(path: Path) -> list[tarfile.TarInfo]:
    """Every regular file, where the archive is whole."""
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as archive:
            members = archive.getmembers()
            end = archive.offset
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"load: {path} is no whole tar file ({error}), which images are read from in any order. Fetch it anew, "
            "and unpack it where it is compressed."
        ) from error
    # A file that was cut between two members looks like a shorter one, but lacks the empty blocks at the end.
    with path.open("rb") as file:
        file.seek(min(end, size) - (min(end, size) % BLOCK))
        rest = file.read(BLOCK)
    if size < end or len(rest) < BLOCK or rest.strip(b"\0"):
        raise DataError(f"load: {path} is cut off: it has {size:,} bytes and no end mark of a tar file. Fetch it anew.")
    return [member for member in members if member.isreg() and member.sparse is None]


def _label(file: int, parts: Mapping[str, tarfile.TarInfo]) -> int:
    try:
        if "cls" in parts:
            label = int(_read(file, parts["cls"]).decode())
        else:
            told = json.loads(_read(file, parts["json"]))
            label = next(told[name] for name in LABELS if name in told)
        if type(label) is not int or not -MOST_LABEL <= label <= MOST_LABEL:
            raise ValueError
        return label
    except (ValueError, TypeError, KeyError, StopIteration) as error:
        raise UnreadableError("the sample has no class: no number in .cls, nor label or cls in .json") from error


def _check(file: int, image: tarfile.TarInfo, level: str) -> None:
    if image.size == 0:
        raise UnreadableError("the file is empty")
    if level == "ends" and image.size > HEAD + TAIL:
        # The pixels in between are not looked at, so they need not be read.
        outer = os.pread(file, HEAD, image.offset_data)
        outer += os.pread(file, TAIL, image.offset_data + image.size - TAIL)
        try:
            check_picture(outer, whole=False)
            return
        except UnreadableError:
            pass  # a long header, or an odd end: the whole image decides
    if level != "sizes":
        check_picture(_read(file, image), whole=level == "whole")


def _read(file: int, member: tarfile.TarInfo) -> bytes:
    return os.pread(file, member.size, member.offset_data)


def _memory(path: Path) -> Path:
    key = hashlib.sha256(str(path.resolve()).encode(errors="surrogateescape")).hexdigest()[:24]
    return cache_folder() / "data" / "shards" / f"{key}.npz"


def _recall(memory: Path, state: str) -> Shard | None:
    try:
        with np.load(memory, allow_pickle=False) as found:
            if str(found["state"]) != state:
                return None
            return Shard(**{column.name: found[column.name] for column in fields(Shard)})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _remember(memory: Path, state: str, built: Shard) -> None:
    columns: dict[str, Any] = {column.name: getattr(built, column.name) for column in fields(Shard)}
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=memory.parent, delete=False) as file:
            np.savez(file, state=np.array(state), **columns)
        os.replace(file.name, memory)
    except OSError:
        pass  # a home that cannot be written to costs the time of looking again, nothing else
