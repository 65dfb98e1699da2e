"""Explicit attention band by band: a mean, or a decay that is a product over rows and columns."""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.functional.explicit_bands import row_decay
from foveal.functional.inputs import wide_dtype
from foveal.kernels.cpu import explicit as native
from foveal.layers.explicit import ExplicitAttention
from foveal.streaming.evaluation import Shape, map_bytes

# Rows of bands that are kept in one piece of memory: single ones between the bands would leave gaps no band fits in.
TOGETHER = 32


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
    halo = 0

    def gather(self, x: Tensor, start: int) -> None:
        self._add(x)

    def settle(self) -> None:
        """Nothing: the sums are the result."""

    def result(self, x: Tensor | None, first: int, start: int, rows: int) -> Tensor:
        assert self._total is not None
        mean = (self._total / (self._space[0] * self._space[1])).to(self._wide)
        return self._made(mean).expand(-1, -1, rows, self._space[1])


class Decayed(_Mixed):
    """Gaussian and Manhattan maps: see ``foveal.functional.explicit_bands``.

    A Gaussian keeps a value for every pair of points, summed in float64, and reads nothing again; a narrow one reads
    the rows around each band. Manhattan keeps one row a band.
    """

    def __init__(self, layer: ExplicitAttention, shape: Shape) -> None:
        super().__init__(layer, shape)
        assert layer.radius is not None
        self._decay = row_decay(layer.decay, self._space, layer.radius.detach().to(self._wide))
        self.reads, self.halo = self._decay.points is None, self._decay.reach
        self._around = self.reads and layer.decay == "gaussian"
        self._left: Tensor | None = None
        self._edges: list[Tensor] = []
        self._lengths: list[int] = []
        self._next = 0
        self._above: Tensor | None = None

    def state(self, rows: int) -> int:
        maps, wide = self._shape[0] * self._heads * self._depth, self._wide.itemsize
        kept = super().state(rows)
        if self._decay.points is not None:
            down, across = self._decay.left_shape
            # What is left, in float64 and as one band leaves it; the matrices between points and columns.
            return kept + 4 * 8 * maps * down * across + 8 * (2 + 2 * self._heads) * across * self._shape[3]
        kept += self._column_matrix()
        return (
            kept if self._around else kept + (-(-self._shape[2] // rows) + TOGETHER + 6) * maps * self._shape[3] * wide
        )

    def _column_matrix(self) -> int:
        """Bytes of the matrix that mixes columns where no kernel does it without one."""
        like = self._layer.value.weight.new_empty((1, 1, 1, 1), dtype=self._wide)
        if native.why_not(like, decay=self._layer.decay, mask=None) is None:
            return 0
        heads = self._heads if self._heads > 1 else 1
        return 3 * heads * self._shape[3] ** 2 * self._wide.itemsize

    def work(self, rows: int) -> int:
        seen = rows + 2 * self.halo
        # A narrow Gaussian's matrix, its places in the decay, and the band's own copies.
        matrix = rows * seen * (16 + 2 * self._heads * self._wide.itemsize) if self._around else 0
        return super().work(seen) + matrix + 2 * map_bytes(self._shape, rows, self._heads * self._depth, self._wide)

    def gather(self, x: Tensor, start: int) -> None:
        v = self._add(x)
        if self._around:
            return
        left = self._decay.left(v, start)
        if self.reads:
            if len(self._lengths) % TOGETHER == 0:
                self._edges.append(left.new_empty((TOGETHER, *left[..., 0, :].shape)))
            self._lengths.append(v.shape[3])
            self._edge(len(self._lengths) - 1).copy_(left[..., 0, :])
        else:
            self._left = left.double() if self._left is None else self._left.add_(left)

    def settle(self) -> None:
        if self._left is not None:
            self._left = self._left.to(self._wide)
        if not self._lengths:
            return
        below = torch.zeros_like(self._edge(0))
        self._above = torch.zeros_like(below)
        for band in reversed(range(len(self._lengths))):
            # What a band left upwards gives way to what lies below it, so one row a band is kept.
            further = self._decay.passed(self._edge(band), below, self._lengths[band])
            self._edge(band).copy_(below)
            below = further

    def _edge(self, band: int) -> Tensor:
        return self._edges[band // TOGETHER][band % TOGETHER]

    def result(self, x: Tensor | None, first: int, start: int, rows: int) -> Tensor:
        mixed = self._mixed(x, first, start, rows)
        assert self._total is not None
        offset = self._layer.offset
        weights = self._decay.weights(start, rows, offset).to(mixed)
        return self._made((mixed + offset * self._total.to(self._wide)).div_(weights))

    def _mixed(self, x: Tensor | None, first: int, start: int, rows: int) -> Tensor:
        if self._left is not None:
            return self._decay.from_points(start, rows, self._left)
        assert x is not None
        v = self._layer.to_mix(x, self._space).to(self._wide)
        if self._around:
            return self._decay.from_around(v, first, start, rows)
        assert self._above is not None
        mixed = self._decay.from_edges(v, torch.stack([self._above, self._edge(self._next)], 3))
        self._next += 1
        self._above = self._decay.passed(self._decay.left(v, start)[..., 1, :], self._above, rows)
        return mixed
