"""A batch of many tensors as one, for its way from a worker process.

Each tensor in shared memory holds a file open in both processes. A batch of 64 images and their targets would be 320
files, and of several batches under way more than the 1,024 that a process may have on most systems.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

FEW = 8
"""Tensors of a batch that travel as they are."""
ALIGNED = 16  # bytes


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies among the bytes."""

    start: int
    dtype: torch.dtype
    shape: torch.Size


@dataclass(frozen=True)
class Packed:
    """The bytes of all tensors, and the batch with a place for each of them."""

    content: Tensor
    frame: Any

    def pin_memory(self) -> Packed:
        """The same in memory that a GPU can read; what torch's loader asks of a batch of an unknown type."""
        return replace(self, content=self.content.pin_memory())


def packed(batch: Any) -> Any:
    """A batch of tensors in lists, tuples and dictionaries as ``Packed``; one of a few tensors as it is."""
    tensors: list[Tensor] = []
    ends = [0]

    def placed(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        place = _Place(-(-ends[-1] // ALIGNED) * ALIGNED, value.dtype, value.shape)
        tensors.append(value)
        ends.append(place.start + value.numel() * value.element_size())
        return place

    frame = _each(placed, batch)
    if len(tensors) <= FEW:
        return batch
    content = torch.empty(ends[-1], dtype=torch.uint8)
    for value, end in zip(tensors, ends[1:], strict=True):
        flat = value.contiguous().reshape(-1).view(torch.uint8)
        content[end - len(flat) : end] = flat
    return Packed(content, frame)


def unpacked(batch: Any) -> Any:
    """What ``packed`` was given; its tensors lie in one piece of memory."""
    if not isinstance(batch, Packed):
        return batch
    content = batch.content

    def taken(value: Any) -> Any:
        if not isinstance(value, _Place):
            return value
        size = prod(value.shape) * value.dtype.itemsize
        return content[value.start : value.start + size].view(value.dtype).view(value.shape)

    return _each(taken, batch.frame)


def _each(change: Callable[[Any], Any], nested: Any) -> Any:
    if type(nested) is dict:
        return {name: _each(change, value) for name, value in nested.items()}
    if type(nested) in (list, tuple):
        return type(nested)(_each(change, value) for value in nested)
    return change(nested)
