"""Sizes of maps in programs that are exported for any height and width.

There a size is a symbol, and a branch on it would tie the program to one side of the branch. So choices between exact
evaluations are made by the sizes of the example that the program is exported with, and where results differ there is
no branch. ``torch.compile`` needs none of this: it compiles anew where another side is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor


def open_sizes(sizes: Sequence[int]) -> bool:
    """Whether some of these are symbols of a program that is being exported."""
    return torch.compiler.is_exporting() and not all(type(size) is int for size in sizes)


def example_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """Those of the example that a program is exported with; outside of an export the sizes themselves."""
    if not open_sizes(sizes):
        return tuple(sizes)
    return tuple(size if type(size) is int else int(cast(Any, size).node.hint) for size in sizes)


@dataclass(frozen=True)
class Example:
    """What costs read of a tensor, at the sizes of the example."""

    shape: tuple[int, ...]


def example(x: Any) -> Any:
    """A tensor with symbols among its sizes as its example; everything else as it is."""
    return Example(example_sizes(x.shape)) if isinstance(x, Tensor) and open_sizes(x.shape) else x


def first(x: Tensor, axis: int, length: int) -> Tensor:
    """``x.narrow(axis, 0, length)``."""
    if not open_sizes((length,)):
        return x.narrow(axis, 0, length)
    # Whether what is cut off a map is contiguous depends on its sizes, so it becomes a tensor of its own.
    return x.index_select(axis, torch.arange(length, device=x.device))


def runs(x: Tensor, axis: int, length: int) -> Tensor:
    """``x.unfold(axis, length, 1)``: all runs of neighbours along an axis, whose own axis comes last."""
    if not open_sizes((length,)):
        return x.unfold(axis, length, 1)
    # torch's takes numbers only.
    start = torch.arange(x.shape[axis] - length + 1, device=x.device)
    index = start[:, None] + torch.arange(length, device=x.device)
    chosen = x.index_select(axis, index.flatten()).unflatten(axis, (-1, length))
    return chosen.movedim(axis + 1, -1)
