"""Maps cut into tiles with the halo that a window needs, and put together again.

Symbols, one value a space axis: t = tile length, w = window length, T = t + w - 1 = tile with halo, n = tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """How a map of ``space`` positions is cut: tiles of ``tile`` positions, each seeing ``halo`` keys an axis."""

    space: tuple[int, ...]
    window: tuple[int, ...]
    tile: tuple[int, ...]

    @property
    def count(self) -> tuple[int, ...]:
        return tuple(-(-length // t) for length, t in zip(self.space, self.tile, strict=True))

    @property
    def halo(self) -> tuple[int, ...]:
        return tuple(t + w - 1 for t, w in zip(self.tile, self.window, strict=True))

    def pad_queries(self, x: Tensor) -> Tensor:
        """Zeros behind the map, up to whole tiles."""
        behind = [n * t - length for n, t, length in zip(self.count, self.tile, self.space, strict=True)]
        return F.pad(x, [side for b in reversed(behind) for side in (0, b)]) if any(behind) else x

    def pad_keys(self, x: Tensor, value: float = 0.0) -> Tensor:
        """Half a window before the map, and behind it what the last tile's halo reaches."""
        pads = []
        for n, t, w, length in reversed(list(zip(self.count, self.tile, self.window, self.space, strict=True))):
            pads += [w // 2, n * t - length + w // 2]
        return F.pad(x, pads, value=value)

    def crop_keys(self, x: Tensor) -> Tensor:
        """The map out of the middle of what ``pad_keys`` made."""
        for axis, (w, length) in enumerate(zip(self.window, self.space, strict=True)):
            x = x.narrow(x.dim() - len(self.space) + axis, w // 2, length)
        return x

    def crop_queries(self, x: Tensor) -> Tensor:
        """The map out of the front of whole tiles."""
        for axis, length in enumerate(self.space):
            x = x.narrow(x.dim() - len(self.space) + axis, 0, length)
        return x


def plan(space: tuple[int, ...], window: tuple[int, ...]) -> Grid:
    """Tiles that cost least: longer ones share keys better, shorter ones compute fewer pairs outside the window.

    An axis costs padded length x halo pairs; 4 to 8 are the lengths at which small matrix products still run well
    in two dimensions, so one dimension takes their square and three their 2/3rd power.
    """
    lengths = {1: (16, 24, 32, 48, 64), 2: (4, 5, 6, 7, 8), 3: (2, 3, 4)}[len(space)]
    tile = []
    for length, w in zip(space, window, strict=True):
        candidates = [t for t in lengths if t <= length] or [max(length, 1)]
        tile.append(min(candidates, key=lambda t: (-(-length // t) * t * (t + w - 1), -t)))
    return Grid(space, window, tuple(tile))


@dataclass(frozen=True)
class Part:
    """A block of work: batches, heads, and rows of tiles on the first axis."""

    batch: slice
    heads: slice
    rows: slice


def parts(grid: Grid, batch: int, heads: int, pairs: int) -> Iterator[Part]:
    """Blocks of at most ``pairs`` query-key pairs (or one row of tiles), so that what they need stays in cache."""
    row = math.prod(grid.count[1:]) * math.prod(grid.tile) * math.prod(grid.halo)
    rows = min(grid.count[0], max(1, pairs // max(row, 1)))
    whole = rows == grid.count[0]
    heads_at_once = min(heads, max(1, pairs // max(row * rows, 1))) if whole else 1
    batches_at_once = max(1, pairs // max(row * rows * heads, 1)) if heads_at_once == heads else 1
    for b in range(0, batch, batches_at_once):
        for h in range(0, heads, heads_at_once):
            for r in range(0, grid.count[0], rows):
                yield Part(
                    slice(b, min(b + batches_at_once, batch)),
                    slice(h, min(h + heads_at_once, heads)),
                    slice(r, min(r + rows, grid.count[0])),
                )


def query_rows(grid: Grid, part: Part) -> slice:
    """The part's rows in a map padded by ``pad_queries``."""
    return slice(part.rows.start * grid.tile[0], part.rows.stop * grid.tile[0])


def key_rows(grid: Grid, part: Part) -> slice:
    """The rows that the part's halo covers in a map padded by ``pad_keys``."""
    return slice(part.rows.start * grid.tile[0], part.rows.stop * grid.tile[0] + grid.window[0] - 1)


def cut_queries(grid: Grid, x: Tensor) -> Tensor:
    """``(b, h, d, *whole tiles)`` to ``(b, h, tiles, positions of a tile, d)``."""
    b, h, d = x.shape[:3]
    axes = len(grid.tile)
    split = [m for size, t in zip(x.shape[3:], grid.tile, strict=True) for m in (size // t, t)]
    x = x.reshape(b, h, d, *split)
    x = x.permute(0, 1, *(3 + 2 * a for a in range(axes)), *(4 + 2 * a for a in range(axes)), 2)
    return x.reshape(b, h, -1, math.prod(grid.tile), d)


def join_queries(grid: Grid, x: Tensor, rows: int) -> Tensor:
    """The inverse of ``cut_queries`` for ``rows`` rows of tiles."""
    b, h, _, _, d = x.shape
    axes = len(grid.tile)
    count = (rows, *grid.count[1:])
    x = x.reshape(b, h, *count, *grid.tile, d)
    x = x.permute(0, 1, 2 + 2 * axes, *(m for a in range(axes) for m in (2 + a, 2 + axes + a)))
    return x.reshape(b, h, d, *(n * t for n, t in zip(count, grid.tile, strict=True)))


def cut_keys(grid: Grid, x: Tensor) -> Tensor:
    """``(b, h, d, *padded)`` to ``(b, h, tiles, d, positions of a halo)``; this copies every key T/t times an axis."""
    b, h, d = x.shape[:3]
    axes = len(grid.tile)
    for axis, (t, halo) in enumerate(zip(grid.tile, grid.halo, strict=True)):
        x = x.unfold(3 + axis, halo, t)
    x = x.permute(0, 1, *range(3, 3 + axes), 2, *range(3 + axes, 3 + 2 * axes))
    return x.reshape(b, h, -1, d, math.prod(grid.halo))


def add_keys(grid: Grid, x: Tensor, out: Tensor) -> None:
    """The adjoint of ``cut_keys``, added to ``out``: sums the halo copies of every key, in a fixed order."""
    b, h, _, d, _ = x.shape
    axes = len(grid.tile)
    rows = (out.shape[3] - grid.window[0] + 1) // grid.tile[0]
    count = (rows, *grid.count[1:])
    x = x.reshape(b, h, *count, d, *grid.halo).movedim(2 + axes, 2)
    # Tiles whose halos do not overlap can be added at once: every step-th one along each axis.
    for axis in range(axes):
        x = _add_axis(x, 3 + axis, 3 + axes, grid.tile[axis], grid.halo[axis], out.shape[3 + axis])
    out += x


def _add_axis(x: Tensor, tiles: int, inside: int, tile: int, halo: int, length: int) -> Tensor:
    """Fold tile axis ``tiles`` and its positions (the first axis from ``inside`` on) into one axis at ``tiles``."""
    x = x.movedim(inside, tiles + 1)
    count = x.shape[tiles]
    shape = [*x.shape[:tiles], (count - 1) * tile + -(-halo // tile) * tile, *x.shape[tiles + 2 :]]
    summed = x.new_zeros(shape)
    for start in range(0, halo, tile):
        width = min(tile, halo - start)
        target = summed.narrow(tiles, start, count * tile).unflatten(tiles, (count, tile)).narrow(tiles + 1, 0, width)
        target += x.narrow(tiles + 1, start, width)
    return summed.narrow(tiles, 0, length)
