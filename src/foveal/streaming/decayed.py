"""Explicit attention band by band: a mean, or a decay that is a product over rows and columns."""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.functional.explicit_bands import row_decay
from foveal.functional.inputs import wide_dtype
from foveal.kernels.cpu import explicit as native
from foveal.layers.explicit import ExplicitAttention
from foveal.streaming.evaluation import Shape, map_bytes


class _Mixed:
    """What both have: the sums over all positions, and the linear maps around the mixing."""

    gathers = True

    def __init__(self, layer: ExplicitAttention, shape: Shape) -> None:
        self._layer, self._shape = layer, shape
        self._space = (shape[2], shape[3])
        self.channels_out, self.stride = layer.channels_out, layer.stride
        probe = layer.value.weight.new_empty((0, layer.channels, 1, 1))
        self._dtype, self._wide = probe.dtype, wide_dtype(probe)
        self._heads, self._depth = layer.to_mix(probe, self._space).shape[1:3]
        self._total: Tensor | None = None

    def state(self, rows: int) -> int:
        return 3 * 8 * self._shape[0] * self._heads * self._depth

    def work(self, rows: int) -> int:
        channels = self._heads * self._depth
        return 2 * map_bytes(self._shape, rows, channels, self._wide) + map_bytes(
            self._shape, rows, channels, self._dtype
        )

    def _add(self, x: Tensor) -> Tensor:
        """The band as it is mixed; its sum, of rows in float32 and of all in float64, is kept."""
        v = self._layer.to_mix(x, self._space).to(self._wide)
        total = v.sum(4, keepdim=True).sum(3, keepdim=True, dtype=torch.float64)
        self._total = total if self._total is None else self._total + total
        return v

    def _made(self, mixed: Tensor) -> Tensor:
        return self._layer.from_mixed(mixed.to(self._dtype), self._space)


class Mean(_Mixed):
    """Uniform weights: one mean for every position."""

    reads = False

    def gather(self, x: Tensor, start: int) -> None:
        self._add(x)

    def settle(self) -> None:
        """Nothing: the sums are the result."""

    def result(self, x: Tensor | None, start: int, rows: int) -> Tensor:
        assert self._total is not None
        mean = (self._total / (self._space[0] * self._space[1])).to(self._wide)
        return self._made(mean).expand(-1, -1, rows, self._space[1])


class Decayed(_Mixed):
    """Gaussian and Manhattan maps: see ``foveal.functional.explicit_bands``.

    A Gaussian keeps some rows of the map, summed in float64, and reads nothing again. Manhattan keeps one row a band.
    """

    def __init__(self, layer: ExplicitAttention, shape: Shape) -> None:
        super().__init__(layer, shape)
        assert layer.radius is not None
        self._rows = row_decay(layer.decay, self._space, layer.radius.detach().to(self._wide))
        self.reads = self._rows.points is None
        self._left: Tensor | None = None
        self._below: list[Tensor] = []
        self._upward: list[tuple[int, Tensor]] = []
        self._above: Tensor | None = None

    def state(self, rows: int) -> int:
        row = self._shape[0] * self._heads * self._depth * self._shape[3]
        wide = self._wide.itemsize
        if self._rows.points is not None:
            # In float64, a band's share in float32, both once more while the columns are mixed.
            kept = self._rows.left_rows * row * (8 + 3 * wide)
        else:
            kept = (-(-self._shape[2] // rows) + 6) * row * wide
        return kept + super().state(rows) + self._column_matrix()

    def _column_matrix(self) -> int:
        """Bytes of the matrix that mixes columns where no kernel does it without one."""
        like = self._layer.value.weight.new_empty((1, 1, 1, 1), dtype=self._wide)
        if native.why_not(like, decay=self._layer.decay, mask=None) is None:
            return 0
        heads = self._heads if self._heads > 1 else 1
        return 3 * heads * self._shape[3] ** 2 * self._wide.itemsize

    def work(self, rows: int) -> int:
        return super().work(rows) + 2 * map_bytes(self._shape, rows, self._heads * self._depth, self._wide)

    def gather(self, x: Tensor, start: int) -> None:
        v = self._add(x)
        left = self._rows.left(v, start)
        if self.reads:
            self._upward.append((v.shape[3], left[..., 0, :].clone()))
        else:
            self._left = left.double() if self._left is None else self._left.add_(left)

    def settle(self) -> None:
        if not self.reads:
            assert self._left is not None
            self._left = self._rows.along_columns(self._left.to(self._wide))
            return
        below = torch.zeros_like(self._upward[-1][1])
        self._above = torch.zeros_like(below)
        while self._upward:
            # What a band left upwards gives way to what lies below it, so one row a band is kept.
            rows, left = self._upward.pop()
            self._below.append(below)
            below = self._rows.passed(left, below, rows)

    def result(self, x: Tensor | None, start: int, rows: int) -> Tensor:
        assert self._total is not None
        if self._left is not None:
            mixed = self._rows.mixed(None, start, rows, self._left)
        else:
            assert x is not None
            assert self._above is not None
            v = self._layer.to_mix(x, self._space).to(self._wide)
            taken = torch.stack([self._above, self._below.pop()], 3)
            mixed = self._rows.along_columns(self._rows.mixed(v, start, rows, taken))
            self._above = self._rows.passed(self._rows.left(v, start)[..., 1, :], self._above, rows)
        offset = self._layer.offset
        mixed = (mixed + offset * self._total.to(self._wide)).div_(self._rows.weights(start, rows, offset).to(mixed))
        return self._made(mixed)
