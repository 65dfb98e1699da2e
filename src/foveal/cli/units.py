"""Numbers as a reader takes them in: 4.09 G, 28.1 MiB, 0.35."""

from __future__ import annotations

from collections.abc import Sequence


def count(value: float) -> str:
    """Three digits and a prefix; whole numbers below a thousand as they are."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{digits(value / size)} {prefix}"
    return f"{value:.0f}"


def memory(size: int) -> str:
    """In powers of 1024."""
    for unit, bytes_ in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= 0.9995 * bytes_:
            return f"{digits(size / bytes_)} {unit}"
    return f"{size} B"


def digits(value: float) -> str:
    """Three significant digits, and no more than three behind the point."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.{2 + (value < 1)}f}"


def fed(inputs: Sequence[Sequence[int]]) -> str:
    """The shapes that a model was given: those of one map in words."""
    if len(inputs) == 1 and len(inputs[0]) > 2:
        batch, channels, *space = inputs[0]
        return f"batch {batch}, {channels} channels, {' x '.join(map(str, space))}"
    told = [" x ".join(map(str, shape)) for shape in inputs]
    return f"{'inputs' if len(told) > 1 else 'input'} {' and '.join(told)}"


def short(value: float) -> str:
    """For narrow columns: three significant digits, two behind the point of what is below one."""
    return f"{value:.2f}" if 0.095 <= value < 0.995 else digits(value)
