"""Explicit attention with a separable decay, for maps in bands of rows: what a band leaves and what it takes.

Along an axis a Gaussian is a sum of few products of a function of the query's place and one of the key's (interpolation
between Chebyshev points), so what a map leaves is one value for every pair of points, however large it is. A Gaussian
too narrow for that reaches no further than some rows, which a band takes from its neighbours. A Manhattan decay falls
by the same factor with every row, so what lies above and below a band is one row each.
Symbols: L rows of the map, r of the band, w columns, R points along an axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from foveal.functional.decays import EPS, Decay, axis_factor
from foveal.functional.explicit import explicit_attention
from foveal.kernels.cpu import explicit as native

# With more points the products with them cost more than the rows that a Gaussian which needs them reaches.
MOST_POINTS = 512


@dataclass(frozen=True)
class RowDecay:
    """A separable decay on a map of a size that comes in bands of rows."""

    decay: Decay
    space: tuple[int, int]
    radius: Tensor
    """``()`` or ``(heads,)``, in float32 at least."""
    points: tuple[Tensor, Tensor] | None
    """``(R,)`` in float64 for each axis: where a Gaussian is interpolated; None for a narrow one and for Manhattan."""
    reach: int
    """Rows beyond which a narrow Gaussian is nothing next to its centre, up to rounding; else 0."""

    @property
    def left_shape(self) -> tuple[int, int]:
        """The last two sizes of what a band leaves."""
        return (2, self.space[1]) if self.points is None else (self.points[0].numel(), self.points[1].numel())

    def left(self, v: Tensor, start: int) -> Tensor:
        """What rows ``(batch, heads, depth, r, w)`` from ``start`` on leave: ``(batch, heads, depth, *left_shape)``.

        For a Gaussian the sums at the points. For Manhattan the decayed sums as the row above and as the row below
        the band would see them, but for one step.
        """
        rows = v.shape[3]
        if self.points is not None:
            down = _interpolation(self._at(0, start, rows), self.points[0])
            return down.mT.to(v) @ (v @ self._across.to(v))
        first = self._powers(rows, v)
        return torch.stack([first, first.flip(1)], 1)[:, None] @ v

    def from_points(self, start: int, rows: int, left: Tensor) -> Tensor:
        """G for a band from ``start`` on, from the sum of what all bands left at the points."""
        assert self.points is not None
        down = _gaussian(self._at(0, start, rows), self.points[0], self.radius).to(left)
        return down[:, None] @ left @ self._reading.to(left)[:, None]

    def from_around(self, v: Tensor, first: int, start: int, rows: int) -> Tensor:
        """G for a band, from it and ``reach`` rows on both sides; ``v`` begins with row ``first``."""
        values = axis_factor(self.decay, self.space[0], self.radius.to(v))
        query = torch.arange(start, start + rows, device=v.device)
        key = torch.arange(first, first + v.shape[3], device=v.device)
        return self._along_columns(values[:, self.space[0] - 1 + key - query[:, None]][:, None] @ v)

    def from_edges(self, v: Tensor, edges: Tensor) -> Tensor:
        """G for a band, from it and what lies above and below: ``(batch, heads, depth, 2, w)``."""
        rows = v.shape[3]
        outer = self._powers(rows + 1, v)[:, 1:]
        inner = axis_factor(self.decay, self.space[0], self.radius.to(v))
        inner = inner[:, self.space[0] - rows : self.space[0] + rows - 1].unfold(1, rows, 1).flip(1)
        return self._along_columns(inner[:, None] @ v + torch.stack([outer, outer.flip(1)], 2)[:, None] @ edges)

    def passed(self, left: Tensor, beyond: Tensor, rows: int) -> Tensor:
        """What lies on one side of the next band, from what this one left there and what lay beyond it (Manhattan)."""
        step = self._powers(rows + 1, beyond)[:, -1]
        return left + step[:, None, None] * beyond

    def weights(self, start: int, rows: int, offset: float) -> Tensor:
        """``(heads or 1, 1, r, w)`` in float64: the sums that rows of G + offset are divided by."""
        down, across = (s[:, :, None] for s in self._sums)
        return (down[:, start : start + rows] * across.mT + offset * math.prod(self.space))[:, None]

    def _along_columns(self, v: Tensor) -> Tensor:
        """G along the columns of ``(batch, heads, depth, r, w)``."""
        # Named, so that what it takes in memory is known: nothing, or the matrix of the columns.
        backend = "native" if native.why_not(v, decay=self.decay, mask=None) is None else "separable"
        flat = explicit_attention(v.flatten(2, 3), decay=self.decay, radius=self.radius, offset=0.0, backend=backend)
        return (flat * self._sums[1].to(v.dtype)[:, None]).unflatten(2, v.shape[2:4])

    @cached_property
    def _across(self) -> Tensor:
        """``(w, R)`` in float64: the polynomial of each point at every column."""
        assert self.points is not None
        return _interpolation(self._at(1, 0, self.space[1]), self.points[1])

    @cached_property
    def _reading(self) -> Tensor:
        """``(heads or 1, R, w)``: the decay from every point to every column."""
        assert self.points is not None
        return _gaussian(self._at(1, 0, self.space[1]), self.points[1], self.radius).mT.to(self.radius.dtype)

    @cached_property
    def _sums(self) -> tuple[Tensor, Tensor]:
        """``(heads or 1, L)`` in float64 for each axis: sums of the rows of its matrix."""
        made = []
        for length in self.space:
            running = axis_factor(self.decay, length, self.radius.double()).cumsum(1)
            before = torch.cat([torch.zeros_like(running[:, :1]), running[:, : length - 1]], 1)
            made.append(running[:, length - 1 :] - before)
        return made[0], made[1]

    def _powers(self, rows: int, like: Tensor) -> Tensor:
        """``(heads or 1, r)``: the decay of 0 to r - 1 rows."""
        steps = torch.arange(rows, device=like.device, dtype=torch.float64) / self.space[0]
        return (-steps / (self.radius.double().reshape(-1, 1).abs() + EPS)).exp().to(like.dtype)

    def _at(self, axis: int, start: int, count: int) -> Tensor:
        places = torch.arange(start, start + count, device=self.radius.device, dtype=torch.float64)
        return places / self.space[axis]


def row_decay(decay: Decay, space: Sequence[int], radius: Tensor) -> RowDecay:
    """The decay on a map of this size; what a Gaussian needs follows from its extreme radii."""
    height, width = space
    if decay != "gaussian":
        return RowDecay(decay, (height, width), radius, None, 0)
    down, across = (_points(length, radius.detach()) for length in (height, width))
    if down is None or across is None:
        return RowDecay(decay, (height, width), radius, None, _reach(height, radius.detach()))
    return RowDecay(decay, (height, width), radius, (down, across), 0)


def _gaussian(rows: Tensor, points: Tensor, radius: Tensor) -> Tensor:
    """``(heads or 1, r, R)`` in float64: the decay from every place to every point."""
    spread = 2 * (radius.double().reshape(-1, 1, 1).square() + EPS)
    return (-(rows[:, None] - points).square() / spread).exp()


def _reach(length: int, radius: Tensor) -> int:
    """Rows to where a Gaussian has fallen below what rounding adds to the sums of a map."""
    least = 1e-20 if radius.dtype == torch.float64 else 1e-12
    spread = 2 * (float(radius.abs().max()) ** 2 + EPS)
    return min(length - 1, math.ceil(length * math.sqrt(-spread * math.log(least))))


def _points(length: int, radius: Tensor) -> Tensor | None:
    """The fewest Chebyshev points between which interpolation errs by rounding alone.

    Where there are none, all rows of a small map; None if it is large.
    """
    end = (length - 1) / length
    exact = 1e-14 if radius.dtype == torch.float64 else 1e-10
    narrowest = radius.abs().min()
    count = 8
    while count < min(length, MOST_POINTS):
        points = end / 2 * (1 - (math.pi * (torch.arange(count, dtype=torch.float64) + 0.5) / count).cos())
        points = points.to(radius.device)
        probe = torch.linspace(0, end, min(4 * count, 300) + 1, dtype=torch.float64, device=radius.device)
        seen = probe[:: max(1, len(probe) // 64)]
        got = _gaussian(seen, points, narrowest)[0] @ _interpolation(probe, points).mT
        if (got - _gaussian(seen, probe, narrowest)[0]).abs().max() <= exact * count:
            return points
        count += count // 2
    if length > MOST_POINTS:
        return None
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
