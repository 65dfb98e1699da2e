"""Explicit attention with a separable decay, for maps in bands of rows: what a band leaves and what it takes.

Along the columns a band is complete. Along the rows a Gaussian is a sum of few products of a function of the query's
row and one of the key's (interpolation between Chebyshev points), so what all rows leave is one row a point. A
Manhattan decay falls by the same factor with every row, so what lies above and below a band is one row each.
Symbols: L rows of the map, r of the band, R rows that are left, w columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.functional.decays import EPS, Decay, axis_factor
from foveal.functional.explicit import explicit_attention

# Beyond this many points the map itself is no larger than what it would leave, or nearly so.
MOST_POINTS = 512


@dataclass(frozen=True)
class RowDecay:
    """A separable decay along the rows of a map of a size."""

    decay: Decay
    space: tuple[int, int]
    radius: Tensor
    """``()`` or ``(heads,)``, in float32 at least."""
    points: Tensor | None
    """``(R,)`` in float64: where a Gaussian is interpolated; None for Manhattan."""

    @property
    def left_rows(self) -> int:
        return 2 if self.points is None else self.points.numel()

    def left(self, v: Tensor, start: int) -> Tensor:
        """``(batch, heads, depth, R, w)``: what rows ``(batch, heads, depth, r, w)`` from ``start`` on leave.

        For a Gaussian the sums at the points; for Manhattan the decayed sums as the row above and as the row below
        the band would see them, but for one step.
        """
        rows = v.shape[3]
        if self.points is not None:
            return _interpolation(self._at(start, rows), self.points).mT.to(v) @ v
        first = self._powers(rows, v)
        return torch.stack([first, first.flip(1)], 1)[:, None] @ v

    def mixed(self, v: Tensor | None, start: int, rows: int, taken: Tensor) -> Tensor:
        """``(batch, heads, depth, r, w)``: G along the rows for a band from ``start`` on.

        Args:
            v: the band, which a Gaussian does not need.
            start: its first row.
            rows: how many it has.
            taken: for a Gaussian the sum of what all bands left; for Manhattan ``(batch, heads, depth, 2, w)``: what
                lies above and below.
        """
        if self.points is not None:
            return self._reading(start, rows).to(taken.dtype)[:, None] @ taken
        assert v is not None
        edges = self._powers(rows + 1, v)[:, 1:]
        inner = axis_factor(self.decay, self.space[0], self.radius.to(v))
        inner = inner[:, self.space[0] - rows : self.space[0] + rows - 1].unfold(1, rows, 1).flip(1)
        return inner[:, None] @ v + torch.stack([edges, edges.flip(1)], 2)[:, None] @ taken

    def passed(self, left: Tensor, beyond: Tensor, rows: int) -> Tensor:
        """What lies on one side of the next band, from what this one left there and what lay beyond it (Manhattan)."""
        step = self._powers(rows + 1, beyond)[:, -1]
        return left + step[:, None, None] * beyond

    def along_columns(self, v: Tensor) -> Tensor:
        """G along the columns of ``(batch, heads, depth, r, w)``."""
        flat = explicit_attention(v.flatten(2, 3), decay=self.decay, radius=self.radius, offset=0.0)
        return (flat * self._sums(1).to(v.dtype)[:, None]).unflatten(2, v.shape[2:4])

    def weights(self, start: int, rows: int, offset: float) -> Tensor:
        """``(heads or 1, 1, r, w)`` in float64: the sums that rows of G + offset are divided by."""
        down, across = self._sums(0)[:, start : start + rows], self._sums(1)
        return (down[:, :, None] * across[:, None] + offset * math.prod(self.space))[:, None]

    def _sums(self, axis: int) -> Tensor:
        """``(heads or 1, L)`` in float64: sums of the rows of one axis's matrix."""
        length = self.space[axis]
        running = axis_factor(self.decay, length, self.radius.double()).cumsum(1)
        before = torch.cat([torch.zeros_like(running[:, :1]), running[:, : length - 1]], 1)
        return running[:, length - 1 :] - before

    def _powers(self, rows: int, like: Tensor) -> Tensor:
        """``(heads or 1, r)``: the decay of 0 to r - 1 rows."""
        steps = torch.arange(rows, device=like.device, dtype=torch.float64) / self.space[0]
        return (-steps / (self.radius.double().reshape(-1, 1).abs() + EPS)).exp().to(like.dtype)

    def _at(self, start: int, rows: int) -> Tensor:
        return torch.arange(start, start + rows, device=self.radius.device, dtype=torch.float64) / self.space[0]

    def _reading(self, start: int, rows: int) -> Tensor:
        """``(heads or 1, r, R)`` in float64: the decay from every row to every point."""
        assert self.points is not None
        return _gaussian(self._at(start, rows), self.points, self.radius)


def row_decay(decay: Decay, space: Sequence[int], radius: Tensor) -> RowDecay:
    """The decay along the rows of a map of this size; the points of a Gaussian follow from the narrowest radius."""
    height, width = space
    points = _points(height, radius.detach()) if decay == "gaussian" else None
    return RowDecay(decay, (height, width), radius, points)


def _gaussian(rows: Tensor, points: Tensor, radius: Tensor) -> Tensor:
    spread = 2 * (radius.double().reshape(-1, 1, 1).square() + EPS)
    return (-(rows[:, None] - points).square() / spread).exp()


def _points(length: int, radius: Tensor) -> Tensor:
    """The fewest Chebyshev points between which interpolation errs by rounding alone, else all rows."""
    end = (length - 1) / length
    exact = 1e-14 if radius.dtype == torch.float64 else 1e-10
    narrowest = radius.abs().min()
    count = 8
    while count < min(length, MOST_POINTS):
        points = end / 2 * (1 - (math.pi * (torch.arange(count, dtype=torch.float64) + 0.5) / count).cos())
        points = points.to(radius.device)
        probe = torch.linspace(0, end, 4 * count + 1, dtype=torch.float64, device=radius.device)
        seen = probe[:: max(1, count // 16)]
        got = _gaussian(seen, points, narrowest)[0] @ _interpolation(probe, points).mT
        if (got - _gaussian(seen, probe, narrowest)[0]).abs().max() <= exact * count:
            return points
        count += count // 2
    return torch.arange(length, dtype=torch.float64, device=radius.device) / length


def _interpolation(rows: Tensor, points: Tensor) -> Tensor:
    """``(r, R)``: the polynomial of each point at every row; one-hot where the points are the rows of the map."""
    count = points.numel()
    # Chebyshev points leave a gap before the first; rows begin at zero.
    if points[0] == 0:
        return (rows[:, None] == points).double()
    end = points[0] + points[-1]
    order = torch.arange(count, dtype=torch.float64, device=points.device)
    at_rows = ((1 - 2 * rows / end).clamp(-1, 1).acos()[:, None] * order).cos()
    at_points = ((1 - 2 * points / end).clamp(-1, 1).acos()[:, None] * order).cos()
    at_rows[:, 0] *= 0.5
    return 2 / count * at_rows @ at_points.mT
