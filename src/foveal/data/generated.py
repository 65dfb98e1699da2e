"""Data sets that foveal makes itself, on disk in the format of the published ones, so that the same readers read them.

A row names the function that writes a whole set into a folder; its module's ``VERSION`` changes when what it writes
does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from foveal.cache import cache_folder
from foveal.errors import DataError, NoMatchError

GENERATED: dict[str, str] = {
    "solids": "foveal.data.points.solids:write_solids",
    "solid-parts": "foveal.data.points.solids:write_solid_parts",
    "photo-planes": "foveal.data.stereo.photo_planes:write",
    "digit-scenes": "foveal.data.detection.digit_scenes:write",
    "digit-scenes-voc": "foveal.data.segmentation.generated:write",
}
"""Name to module and function: ``(folder) -> None``."""


def generated(name: str) -> Path:
    """The folder of a generated set in the cache; written first where it is not there yet.

    Raises:
        DataError: it cannot be written.
    """
    module, _ = _writer(name)
    folder = cache_folder() / "data" / f"{name}-{module.VERSION}"
    if not folder.is_dir():
        _write(name, folder)
    return folder


def place_of(name: str, path: str | None, wanted: str) -> Path:
    """Where a data set lies: as given, or in the cache where foveal makes it.

    Raises:
        DataError: its path is not given; ``wanted`` says how the folder has to look.
    """
    if path is not None:
        return Path(path)
    if name in GENERATED:
        return generated(name)
    raise DataError(f"load: {name} needs --data.path, the path of its folder, got none. {wanted}")


def write(name: str, out: str | os.PathLike[str]) -> Path:
    """Write a generated set to a folder that is not there yet, whole or not at all.

    Raises:
        NoMatchError: there is no such set.
        DataError: the folder holds something, or cannot be written.
    """
    _writer(name)
    folder = Path(out)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise DataError(f"data: {folder} is there already. Name a new folder.")
    _write(name, folder)
    return folder


def _write(name: str, folder: Path) -> None:
    """Write a set, or leave what another process has written meanwhile."""
    _, make = _writer(name)
    part = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        made = part / "made"  # mkdtemp's own is for its owner alone
        made.mkdir()
        make(made)
        _place(made, folder)
    except OSError as error:
        raise DataError(f"data: {folder} could not be written: {error.strerror}. Make room, or use another.") from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def _place(made: Path, folder: Path) -> None:
    """Rename, unless another process was faster with the same bytes."""
    try:
        made.replace(folder)
    except OSError:
        if not (folder.is_dir() and any(folder.iterdir())):
            raise


def _writer(name: str) -> tuple[Any, Callable[[Path], None]]:
    if name not in GENERATED:
        raise NoMatchError(f"data: there is no generated data set {name!r}. Use {', '.join(GENERATED)}.")
    module, _, function = GENERATED[name].partition(":")
    room = import_module(module)
    return room, getattr(room, function)
