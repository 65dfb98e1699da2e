"""What every attention layer offers, whatever its mechanism, and how one is described before its place is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn


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
    """Base of all layers: ``forward(x) == output_from(attend(x), x)``, by whatever order of products costs less.

    ``x`` is a channels-first map ``(batch, channels, *space)``.
    """

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

    def forward(self, x: Tensor) -> Tensor:
        return self.output_from(self.attend(x), x)
