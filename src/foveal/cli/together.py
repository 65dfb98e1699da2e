"""Several processes that torchrun started with the same command: one of them speaks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


def speaks() -> bool:
    """Whether this process is the one whose words people see: the first that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def hushed() -> Iterator[None]:
    """Nothing that is said here is seen."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield
