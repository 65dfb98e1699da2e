"""Explicit attention (ExpAtt): value and output projections around a map given by distance.

Paper: Tan et al., Explicitly Modeled Attention Maps for Image Classification (2020), equations 4 to 12.
Departures: those of ``foveal.functional.decays``; ``per_head_radius`` and ``offset=0`` are the paper's ablations.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from foveal.functional.decays import LEARNABLE, Decay, check_decay
from foveal.functional.explicit import attention_row, explicit_attention, mixing_macs
from foveal.functional.inputs import check_number
from foveal.functional.sizes import example_sizes
from foveal.layers.base import AttentionLayer, Site, check_heads, check_sizes
from foveal.layers.pointwise import Pointwise, pointwise
from foveal.layers.pooling import pool_overlapping


class ExplicitAttention(AttentionLayer):
    """W_o Norm(G + offset) W_v x, then average pooling if strided.

    ``(batch, channels_in, *space)`` to ``(batch, channels_out, *ceil(space / stride))``. With a shared radius the
    two projections are one matrix where that costs less; G costs one small matrix an axis or less.

    Args:
        channels_in: channels of the map.
        channels_out: channels of the result; channels_in when None.
        value_channels: channels that are mixed; channels_out when None, as in the paper.
        heads: share one map, so they only matter with ``per_head_radius`` (and for what values they divide).
        decay: ``uniform``, ``linear``, ``cosine``, ``gaussian``, ``euclidean`` or ``manhattan``.
        radius: start of the learnable radius, in units of an axis's length; ignored by decays that have none.
        per_head_radius: a radius for each head, an ablation of the paper.
        offset: added to G before normalisation.
        stride: attention at the input's resolution, then 3-wide average pooling of this stride and padding 1.
        bias: of both projections; none, because a norm follows.
        backend: of ``foveal.explicit_attention``; None takes the cheapest.
    """

    radius: nn.Parameter | None

    def __init__(
        self,
        channels_in: int,
        channels_out: int | None = None,
        *,
        value_channels: int | None = None,
        heads: int = 8,
        decay: Decay = "gaussian",
        radius: float = 0.75,
        per_head_radius: bool = False,
        offset: float = 1.0,
        stride: int = 1,
        bias: bool = False,
        backend: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        channels_out = channels_in if channels_out is None else channels_out
        value_channels = channels_out if value_channels is None else value_channels
        check_sizes("ExplicitAttention", channels_in=channels_in, channels_out=channels_out, stride=stride)
        check_heads("ExplicitAttention", heads, value_channels=value_channels)
        check_number("ExplicitAttention", "radius", radius)
        check_number("ExplicitAttention", "offset", offset, least=0)
        self.channels, self.channels_out, self.heads = channels_in, channels_out, heads
        self.decay: Decay = decay
        self.offset, self.stride, self.backend = offset, stride, backend
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        start = torch.full((heads,) if per_head_radius else (), float(radius), **made) if decay in LEARNABLE else None
        check_decay("ExplicitAttention", decay, start, heads)
        self.value = Pointwise(channels_in, value_channels, bias=bias, **made)
        self.output = Pointwise(value_channels, channels_out, bias=bias, **made)
        self.register_parameter("radius", nn.Parameter(start) if start is not None else None)

    @classmethod
    def from_site(cls, site: Site, **options: Any) -> ExplicitAttention:
        return cls(site.channels_in, site.channels_out, stride=site.stride, **options)

    def values(self, x: Tensor) -> Tensor:
        return self.split(self.value(x))

    def attend(self, x: Tensor) -> Tensor:
        v = self.value(x)
        # Heads that share their map go through as one, with all their channels.
        heads = self.heads if self._radius_by_head() else 1
        return self.split(self._mix(v.unflatten(1, (heads, -1))).flatten(1, 2))

    def _mix(self, v: Tensor) -> Tensor:
        return explicit_attention(v, decay=self.decay, radius=self.radius, offset=self.offset, backend=self.backend)

    def _radius_by_head(self) -> bool:
        return self.radius is not None and self.radius.dim() > 0

    def output_from(self, attended: Tensor, x: Tensor) -> Tensor:
        return self._pool(self.output(attended.flatten(1, 2)))

    def _pool(self, out: Tensor) -> Tensor:
        return pool_overlapping(out, self.stride)

    def _folds(self, space: tuple[int, ...]) -> bool:
        """Whether one matrix W_o W_v before the mixing costs less than two around it."""
        if self._radius_by_head() or self.backend == "reference":
            return False
        n, c, e, o = math.prod(space), self.channels, self.value.out_features, self.channels_out
        more = 0 if e == o else mixing_macs(self.decay, space, o) - mixing_macs(self.decay, space, e)
        return n * c * o + c * e * o + more < n * e * (c + o)

    def forward(self, x: Tensor) -> Tensor:
        space = example_sizes(self.checked(x).shape[2:])
        return self._pool(self.from_mixed(self._mix(self.to_mix(x, space)), space))

    def to_mix(self, x: Tensor, space: tuple[int, ...]) -> Tensor:
        """What is mixed over positions, ``(batch, heads or 1, depth, *space)``, for positions of a map of this size."""
        if not self._folds(space):
            # Heads that share their map go through as one, with all their channels.
            return self.value(x).unflatten(1, (self.heads if self._radius_by_head() else 1, -1))
        weight = self.output.weight @ self.value.weight
        bias: Tensor | None = self.output.bias
        if self.value.bias is not None:
            # Rows of the map sum to 1, so what is constant over positions passes it unchanged.
            assert bias is not None
            bias = bias + (self.value.bias[None] @ self.output.weight.mT)[0]
        return pointwise(x, weight, bias)[:, None]

    def from_mixed(self, mixed: Tensor, space: tuple[int, ...]) -> Tensor:
        """The result before the pooling, of what was mixed."""
        flat = mixed.flatten(1, 2)
        return flat if self._folds(space) else self.output(flat)

    def macs(self, space: tuple[int, ...]) -> int:
        n, c, e, o = math.prod(space), self.channels, self.value.out_features, self.channels_out
        if self._folds(space):
            bias = e * o if self.value.bias is not None else 0
            return n * c * o + c * e * o + bias + mixing_macs(self.decay, space, o)
        return n * e * (c + o) + mixing_macs(self.decay, space, e, self.heads if self._radius_by_head() else 1)

    def attention_map(self, x: Tensor, *, at: tuple[int, ...]) -> Tensor:
        """The closed form, the same for every image: ``(batch, heads, *space)``."""
        self.checked_position(x, at)
        like = x.new_zeros((), dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
        radius = self.radius.to(like.dtype) if self.radius is not None else None
        row = attention_row(self.decay, x.shape[2:], radius, self.offset, at, like)
        return row.expand(x.shape[0], self.heads, *x.shape[2:]).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.channels}, {self.channels_out}, {self.decay}, heads={self.heads}, stride={self.stride}"
