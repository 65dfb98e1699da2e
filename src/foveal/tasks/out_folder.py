"""The folder that a command works in: is it ours, can it be written, and is nobody else in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from foveal.errors import DataError, OptionError
from foveal.tasks.run_folder import read_json

LOCK = ".lock"


def check_path(out: str | os.PathLike[str], who: str = "compare") -> Path:
    """The path of a folder; raises where it names nothing, or a file."""
    if not os.fspath(out).strip():
        raise OptionError(f"{who}: --out is empty. Give the path of a folder.")
    path = Path(out)
    if path.exists() and not path.is_dir():
        raise DataError(f"{who}: {path} is a file, a folder is wanted. Use another path for --out.")
    return path


def check_out(out: Path, config: Mapping[str, Any]) -> None:
    """Raise where a folder holds anything but this comparison, or cannot be written; leaves nothing behind."""
    held = read_json(out / "compare.json") if out.is_dir() else None
    if held is not None:
        for key, value in config.items():
            if held.get(key) != value:
                raise OptionError(
                    f"compare: {out} holds another comparison: its {key} is {held.get(key)!r}, asked for is {value!r}. "
                    "Use another --out, or the command that it was made with."
                )
    elif out.is_dir() and any(path.name not in (LOCK, "runs") for path in out.iterdir()):
        raise OptionError(f"compare: {out} is not empty and holds no comparison. Use a new folder for --out.")
    existed = out.exists()
    make_folder(out)
    if not existed:
        out.rmdir()


def make_folder(path: Path, who: str = "compare") -> None:
    """Make a folder that can be written to, or say why not."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(path, os.W_OK | os.X_OK) else "permission denied"
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise DataError(f"{who}: {path} cannot be written: {reason}. Use another folder for --out.")


@contextmanager
def alone_in(out: Path, who: str = "compare") -> Iterator[None]:
    """Nobody else works in this folder. The system frees the lock when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    _close_in_forked_processes()
    number = os.open(out / LOCK, os.O_WRONLY | os.O_CREAT, 0o644)
    _locks.add(number)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OptionError(f"{who}: another process works in {out}. Wait for it, or use another --out.") from error
        yield
    finally:
        _locks.discard(number)
        os.close(number)


_locks: set[int] = set()


@cache
def _close_in_forked_processes() -> None:
    """Those that read data live on for seconds after this one was killed, and would keep its locks until they end."""

    def close() -> None:
        for number in _locks:
            os.close(number)
        _locks.clear()

    os.register_at_fork(after_in_child=close)
