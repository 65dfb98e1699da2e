"""One call of an attention layer, kept so that its maps can be asked for afterwards.

Kept are the layer's input, a copy of its own, and where its positions lie on the image; every map is computed when it
is asked for, from the layer as it stands, so nothing of the size of a whole attention matrix is ever held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from foveal.errors import FovealError, OptionError, ShapeError
from foveal.seeing.grid import Grid
from foveal.seeing.readings import Reading


class Captured:
    """A call of one layer.

    Attributes:
        name: of the module in the model.
        layer: the module.
        mechanism: as in the registry of layers, or ``dot_product`` for attention of torch and timm.
        heads: how many maps a position has.
        grid: where positions lie on the image.
        extra: tokens before the first position, a class token say.
    """

    def __init__(self, name: str, layer: nn.Module, reading: Reading, grid: Grid, extra: int, autocast: Autocast):
        self.name, self.layer, self.grid, self.extra = name, layer, grid, extra
        self.mechanism, self.heads = reading.mechanism, reading.heads
        self._reading, self._autocast = reading, autocast
        self._versions = _versions(layer)

    @property
    def size(self) -> tuple[int, ...]:
        """Positions along each axis of the image."""
        return self.grid.size

    def of(self, image: int) -> Captured:
        """The same call for one image of its batch alone, so that nothing is computed for the others."""
        one = Captured(self.name, self.layer, self._reading.of(image), self.grid, self.extra, self._autocast)
        one._versions = self._versions
        return one

    def row(self, at: Sequence[int] | int, *, average: bool = False, **asked: Any) -> Tensor:
        """The weights of one query on every position.

        Args:
            at: a position of the layer, one index an axis of the image; a number means a token, 0 the class token.
            average: over heads.
            **asked: ``radius`` for explicit attention: the closed form with another radius than the learned one.

        Returns:
            ``(batch, heads, *size)``, without the heads if averaged. Rows sum to 1, less what a query puts on padding
            or on extra tokens.
        """
        with self._ready():
            row = self._placed(self._reading.row(self._own(at), **asked))
        return row.mean(1) if average else row

    def at_pixel(self, pixel: Sequence[float], *, average: bool = False, smooth: bool = False, **asked: Any) -> Tensor:
        """What the position nearest to a pixel looks at, at the resolution of the image.

        Args:
            pixel: one coordinate an axis of the image.
            average: over heads.
            smooth: interpolated, instead of every pixel taking its nearest position's weight.
            **asked: see ``row``.

        Returns:
            ``(batch, heads, *image)``; without the heads if averaged.

        Raises:
            ShapeError: the pixel lies outside the image, or the layer's positions lie on none: those of a volume, of a
                cloud of points, or of what is made of codes.
        """
        row = self.row(self.grid.position(pixel), average=average, **asked)
        return self.grid.on_image(row, smooth=smooth)

    def rows(self, at: Iterable[Sequence[int]] | None = None, *, chunk: int = 64) -> Iterator[Tensor]:
        """Rows of many queries, ``chunk`` at a time: ``(chunk, batch, heads, *size)``.

        Args:
            at: positions; None takes all, rows of the image first.
            chunk: rows that are held at a time.
        """
        if chunk < 1:
            raise OptionError(f"capture: chunk must be at least 1, got {chunk}. Use 64, say.")
        held: list[Tensor] = []
        for position in self._every() if at is None else at:
            held.append(self.row(position))
            if len(held) == chunk:
                yield torch.stack(held)
                held = []
        if held:
            yield torch.stack(held)

    def weights(self, at: Sequence[int] | int) -> Tensor:
        """The weights that one query puts on ``values()``: positions, pooled positions or memory slots."""
        with self._ready():
            return self._reading.weights(self._own(at))

    def values(self) -> Tensor:
        """What is summed with ``weights``: ``(batch, heads, depth, *keys)``."""
        with self._ready():
            return self._reading.values()

    def parts(self) -> dict[str, Tensor]:
        """What all queries share: ``global_maps`` of efficient attention, ``slot_maps`` of external attention, both
        ``(batch, heads, maps, *size)``; ``radius`` of explicit attention ``()`` or ``(heads,)``; ``offset_logits`` of
        local attention with relative positions, the mean q.r of each offset ``(heads, *window)``; empty for others."""
        with self._ready():
            found = self._reading.parts()
            return {name: self._placed(part) if name.endswith("maps") else part for name, part in found.items()}

    def coefficients(self, at: Sequence[int] | int) -> Tensor | None:
        """How much of each shared map a query takes, ``(batch, heads, maps)``; None where nothing is shared."""
        with self._ready():
            return self._reading.coefficients(self._own(at))

    def _ready(self) -> AbstractContextManager[Any]:
        if _versions(self.layer) != self._versions:
            raise FovealError(
                f"capture: the weights of {self.name!r} have changed since its input was kept, so its maps would mix "
                "both. Capture another forward."
            )
        stack = ExitStack()
        stack.enter_context(torch.no_grad())
        stack.enter_context(self._autocast.again())
        return stack

    def _own(self, at: Sequence[int] | int) -> tuple[int, ...]:
        """A position of the image, or a token, as a position of the layer."""
        own, size = self._reading.size, self.grid.size
        if isinstance(at, int) and len(own) == 1:
            if not 0 <= at < own[0]:
                raise ShapeError(f"capture: {self.name!r} has the tokens 0 to {own[0] - 1}, got {at}.")
            return (at,)
        place = (at,) if isinstance(at, int) else tuple(at)
        if len(place) != len(size) or not all(0 <= p < n for p, n in zip(place, size, strict=True)):
            raise ShapeError(f"capture: {self.name!r} has a map of {size} positions, got {at!r} for one of them.")
        if own == size and not self.extra:
            return place
        index = 0
        for p, n in zip(place, size, strict=True):
            index = index * n + p
        return (self.extra + index,)

    def _placed(self, values: Tensor) -> Tensor:
        """``(..., *own positions)`` as ``(..., *size)``, without extra tokens."""
        if self._reading.size == self.grid.size and not self.extra:
            return values
        return values[..., self.extra :].unflatten(-1, self.grid.size)

    def _every(self) -> Iterator[tuple[int, ...]]:
        return (
            tuple(place)
            for place in torch.cartesian_prod(*map(torch.arange, self.size)).reshape(-1, len(self.size)).tolist()
        )

    def __repr__(self) -> str:
        lies = "" if self.grid.followed else ", taken to share the image evenly"
        where = f"{self.size} on no image" if self.grid.nowhere else f"{self.size} of {self.grid.image}{lies}"
        return f"Captured({self.name!r}, {self.mechanism}, {self.heads} heads, {where})"


class Autocast:
    """Whether a device ran in another type, to compute maps in the same."""

    def __init__(self, device: str) -> None:
        self.device, self.on = device, torch.is_autocast_enabled(device)
        self.dtype = torch.get_autocast_dtype(device)

    def again(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device, dtype=self.dtype, enabled=self.on)


def _versions(layer: nn.Module) -> tuple[tuple[int, int], ...]:
    """Which tensors a layer's parameters are, and how often each was written to."""
    return tuple((id(p), -1 if p.is_inference() else p._version) for p in layer.parameters())
