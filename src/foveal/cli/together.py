"""Several processes that torchrun started with the same command: one of them speaks."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import NoReturn


def speaks() -> bool:
    """Whether this process is the one whose words people see: the first that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def hushed() -> Iterator[None]:
    """Nothing that is said here is seen."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def started() -> bool:
    """Whether torchrun started this process."""
    return "RANK" in os.environ


def leave(status: int) -> NoReturn:
    """End this process as Python does, without the destructors of C++ behind it.

    Some of torch's (2.15, gloo) now and then find a thread that still runs, which aborts the process: torchrun would
    take a run that is whole for one that failed, and start it again.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(status)
