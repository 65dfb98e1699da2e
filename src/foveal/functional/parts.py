"""Softmax over positions from parts of the positions: what a part contributes, and how two become one.

A part keeps the greatest score it met and sums relative to it, so any part can be put beside any other, whatever its
scores; the sums over all positions are those of the definition.
Symbols: d rows of scores, n positions of the part, e channels of the values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.functional.inputs import wide_dtype

# A sum in float32 stays within this many positions; sums of these are taken in float64.
RUN = 1 << 16


@dataclass(frozen=True)
class Part:
    """Sums over some positions of the weights exp(score - greatest), and of these weights times the values."""

    greatest: Tensor
    """``(batch, heads, d)``; zeros where the weights are the scores themselves. It has no gradient."""
    total: Tensor
    """``(batch, heads, d)``: the sum of the weights."""
    held: Tensor | None
    """``(batch, heads, d, e)``: the sum of weights times values; None where only the weights are asked for."""
    positions: int

    def against(self, greatest: Tensor) -> Part:
        """The same relative to other greatest scores, which must not be less than its own."""
        factor = (self.greatest.to(self.total.dtype) - greatest.to(self.total.dtype)).exp()
        held = None if self.held is None else self.held * factor[..., None]
        return Part(greatest, self.total * factor, held, self.positions)

    def __add__(self, other: Part) -> Part:
        greatest = torch.maximum(self.greatest, other.greatest)
        a, b = self.against(greatest), other.against(greatest)
        held = None if a.held is None or b.held is None else a.held + b.held
        return Part(greatest, a.total + b.total, held, a.positions + b.positions)

    def to(self, dtype: torch.dtype) -> Part:
        """Sums of another type; the greatest scores are exact in their own."""
        held = None if self.held is None else self.held.to(dtype)
        return Part(self.greatest, self.total.to(dtype), held, self.positions)


def part_of(scores: Tensor, values: Tensor | None, *, exponential: bool = True) -> Part:
    """The part that flat scores ``(batch, heads, d, n)`` and values ``(batch, heads or 1, e, n)`` are.

    Without ``exponential`` the weights are the scores. Sums are taken in float32 at least.
    """
    wide = wide_dtype(scores)
    weights = scores.to(wide)
    if exponential:
        greatest = weights.detach().amax(3)
        weights = (weights - greatest[..., None]).exp()
    else:
        greatest = weights.new_zeros(weights.shape[:3])
    held = None
    if values is not None:
        values = values.to(wide)
        if values.shape[1] == 1:
            held = (weights.flatten(1, 2) @ values.squeeze(1).mT).unflatten(1, weights.shape[1:3])
        else:
            held = weights @ values.mT
    return Part(greatest, weights.sum(3), held, scores.shape[3])


def together(parts: Iterable[Part]) -> Part:
    """All parts as one, summed in float64 in their order."""
    whole: Part | None = None
    for part in parts:
        whole = part.to(torch.float64) if whole is None else whole + part.to(torch.float64)
    assert whole is not None
    return whole
