"""What every attention layer offers, whatever its mechanism, and how one is described before its place is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from foveal.errors import OptionError, ShapeError
from foveal.functional.inputs import check_beside, check_tensor, on_last


class Site(Protocol):
    """Where a layer will stand, as far as a layer has to know it."""

    @property
    def name(self) -> str: ...
    @property
    def channels_in(self) -> int: ...
    @property
    def channels_out(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def dims(self) -> int | None: ...
    @property
    def size(self) -> tuple[int, ...] | None: ...


L = TypeVar("L", bound="AttentionLayer")


@dataclass(frozen=True)
class Like:
    """A layer without a place: calling it with a site builds the layer for that site."""

    layer: type[AttentionLayer]
    options: dict[str, Any]

    def __call__(self, site: Site) -> nn.Module:
        return self.layer.from_site(site, **self.options)

    def __repr__(self) -> str:
        return f"{self.layer.__name__}.like({', '.join(f'{k}={v!r}' for k, v in self.options.items())})"


class AttentionLayer(nn.Module):
    """Base of all layers: ``forward(x)`` equals ``output_from(attend(x), x)``, in whatever order costs less.

    ``x`` is a channels-first map ``(batch, channels, *space)`` of any size.
    """

    channels: int
    heads: int

    @classmethod
    def like(cls, **options: Any) -> Like:
        """Describe this layer for a site that is not known yet; see ``foveal.replace_``."""
        return Like(cls, options)

    @classmethod
    def from_site(cls: type[L], site: Site, **options: Any) -> L:
        """Build the layer for a site: sizes from the site, all else from the options."""
        raise NotImplementedError

    def values(self, x: Tensor) -> Tensor:
        """What the weights of ``attention_map`` are put on: ``(batch, heads, depth, *keys)``."""
        raise NotImplementedError

    def attend(self, x: Tensor) -> Tensor:
        """The weighted sums ``(batch, heads, depth, *space)`` before the output projection."""
        raise NotImplementedError

    def output_from(self, attended: Tensor, x: Tensor) -> Tensor:
        """What follows the weighted sums: projection, norm, residual, pooling."""
        raise NotImplementedError

    def attention_map(self, x: Tensor, *, at: tuple[int, ...]) -> Tensor:
        """The weights ``(batch, heads, *keys)`` that the query at position ``at`` puts on ``values(x)``."""
        raise NotImplementedError

    def position_map(self, x: Tensor, *, at: tuple[int, ...]) -> Tensor:
        """The same as weights on positions, ``(batch, heads, *space)``, for drawing."""
        return self.attention_map(x, at=at)

    def macs(self, space: tuple[int, ...]) -> int:
        """Multiply-adds of the matrix products of one forward over a map of this size, batch 1, as evaluated."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.output_from(self.attend(self.checked(x)), x)

    def asks_gradients(self, x: Tensor) -> bool:
        """Whether a gradient of this map or of a parameter is recorded now."""
        return torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in self.parameters()))

    def checked(self, x: Tensor) -> Tensor:
        """The map, if it is one with this layer's channels."""
        name = type(self).__name__
        check_tensor(name, "the map", x)
        if not 3 <= x.dim() <= 5 or x.shape[1] != self.channels or 0 in x.shape[2:]:
            raise ShapeError(
                f"{name}: the map must be (batch, {self.channels}, *space) with 1 to 3 space axes, only the batch "
                f"empty, got {tuple(x.shape)}. Tokens (batch, positions, channels) become one by x.mT."
            )
        check_beside(name, "its weight", next(self.parameters()), {"the map": x})
        return x

    def checked_position(self, x: Tensor, at: tuple[int, ...]) -> tuple[int, ...]:
        """The position, if it lies on the map."""
        space = tuple(self.checked(x).shape[2:])
        named = isinstance(at, (tuple, list)) and len(at) == len(space) and all(isinstance(p, int) for p in at)
        if not named or not all(0 <= p < length for p, length in zip(at, space, strict=True)):
            raise ShapeError(
                f"{type(self).__name__}.attention_map: at must name a position of the {space} map, one index an "
                f"axis, got {at!r}."
            )
        return tuple(at)

    def split(self, x: Tensor) -> Tensor:
        """``(batch, heads * depth, *space)`` as ``(batch, heads, depth, *space)``."""
        return x.unflatten(1, (self.heads, -1))


def check_sizes(layer: str, **sizes: Any) -> None:
    """Sizes must be integers of at least 1."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise OptionError(f"{layer}: {name} must be an integer of at least 1, got {size!r}.")


def check_heads(layer: str, heads: int, **channels: int) -> None:
    """Heads must divide the channels that they share."""
    check_sizes(layer, heads=heads, **channels)
    for name, count in channels.items():
        if count % heads:
            fitting = [h for h in range(1, min(count, 64) + 1) if count % h == 0] or [1]
            near = min(fitting, key=lambda h: abs(h - heads))
            raise OptionError(f"{layer}: heads must divide {name}={count}, got heads={heads}. Use {near}, say.")


def column(x: Tensor, at: tuple[int, ...]) -> Tensor:
    """``(batch, heads, depth)``: the features at one position of ``(batch, heads, depth, *space)``."""
    return x[on_last(at)]
