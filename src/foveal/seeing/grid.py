"""Where on the image the positions of a map lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.errors import ShapeError


@dataclass(frozen=True)
class Grid:
    """Position ``i`` of an axis is centred on pixel ``offset + i * stride`` of that axis.

    Strides and paddings of the layers before decide it: after ResNet's stem position ``i`` is centred on pixel ``4 i``,
    after a patch embedding of 4 pixels on ``4 i + 1.5``.
    """

    image: tuple[int, ...]
    size: tuple[int, ...]
    stride: tuple[float, ...]
    offset: tuple[float, ...]
    followed: bool = True
    """False where a layer before could not be followed and the positions are taken to share the image evenly."""
    nowhere: str = ""
    """Why the positions lie on no image, which is ``()`` then; they are asked for by index alone."""

    @classmethod
    def even(cls, image: Sequence[int], size: Sequence[int]) -> Grid:
        """Positions that share the image evenly."""
        stride = tuple(full / count for full, count in zip(image, size, strict=True))
        return cls(tuple(image), tuple(size), stride, tuple((step - 1) / 2 for step in stride), followed=False)

    @classmethod
    def off(cls, size: Sequence[int], why: str) -> Grid:
        """Positions that lie on no image."""
        return cls((), tuple(size), (), (), followed=False, nowhere=why)

    def position(self, pixel: Sequence[float]) -> tuple[int, ...]:
        """The position whose centre is nearest to a pixel.

        Raises:
            ShapeError: the pixel lies outside the image, or there is none.
        """
        self._check()
        inside = len(pixel) == len(self.image) and all(
            0 <= p <= length - 1 for p, length in zip(pixel, self.image, strict=True)
        )
        if not inside:
            raise ShapeError(f"capture: a pixel of the {self.image} image is wanted, got {tuple(pixel)}.")
        return tuple(
            min(max(math.floor((p - start) / step + 0.5), 0), count - 1)
            for p, start, step, count in zip(pixel, self.offset, self.stride, self.size, strict=True)
        )

    def pixel(self, position: Sequence[int]) -> tuple[float, ...]:
        """The centre of a position, in pixels from the centre of the first."""
        self._check()
        return tuple(start + i * step for i, start, step in zip(position, self.offset, self.stride, strict=True))

    def on_image(self, maps: Tensor, *, smooth: bool = False) -> Tensor:
        """Values of positions as values of pixels: ``(..., *size)`` to ``(..., *image)``.

        Args:
            maps: one value a position.
            smooth: linear between centres instead of each pixel its nearest position's.
        """
        self._check()
        for axis, (length, count) in enumerate(zip(self.image, self.size, strict=True)):
            dim = maps.dim() - len(self.image) + axis
            pixels = torch.arange(length, device=maps.device, dtype=torch.float64)
            at = ((pixels - self.offset[axis]) / self.stride[axis]).clamp(0, count - 1)
            if not smooth:
                maps = maps.index_select(dim, (at + 0.5).floor().long().clamp_max(count - 1))
                continue
            low = at.floor().long().clamp_max(max(count - 2, 0))
            share = (at - low).to(maps.dtype).reshape(-1, *[1] * (maps.dim() - dim - 1))
            high = (low + 1).clamp_max(count - 1)
            maps = maps.index_select(dim, low) * (1 - share) + maps.index_select(dim, high) * share
        return maps

    def _check(self) -> None:
        if self.nowhere:
            middle = tuple(length // 2 for length in self.size)
            raise ShapeError(
                f"capture: {self.nowhere}, so no pixel can be asked for. Ask for a position: row({middle})."
            )
