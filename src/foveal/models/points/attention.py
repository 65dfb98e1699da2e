"""Attention among the points of a cloud: offset attention, the self-attention before it, external attention in place.

Papers: Guo et al., PCT: Point Cloud Transformer (2021), sections 3.1 and 3.2; Guo et al., Beyond Self-attention:
External Attention using Two Linear Layers (2021), its experiment on point clouds. Departures: the layers follow the
authors' code. Their external layer was never released: that it keeps offset, norm, ReLU and sum is our reading.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from foveal.functional.dot_product import attention_row, dot_product_attention
from foveal.functional.external import external_attention, normalize_slots
from foveal.layers.base import AttentionLayer, Site, check_sizes, column
from foveal.layers.pointwise import BatchNorm, Pointwise
from foveal.models.points.offset import offset_attention, offset_row


class PointAttention(AttentionLayer):
    """x + ReLU(BN(W(x - attended))), or W(attended) without the offset; one head.

    ``(batch, channels, *space)`` to the same shape: a cloud has one axis, its points.
    """

    offset: bool
    output: Pointwise
    norm: BatchNorm

    def _set_up(self, channels: int, offset: bool, made: dict[str, Any]) -> None:
        self.channels, self.heads, self.offset = channels, 1, offset
        self.output = Pointwise(channels, channels, **made)
        self.norm = BatchNorm(channels, **made)

    @classmethod
    def from_site(cls, site: Site, **options: Any) -> PointAttention:
        return cls(site.channels_out, **options)

    def output_from(self, attended: Tensor, x: Tensor) -> Tensor:
        attended = attended.flatten(1, 2)
        return x + self.norm(self.output(x - attended if self.offset else attended)).relu()

    def extra_repr(self) -> str:
        return f"{self.channels}, offset={self.offset}"


class _Pairwise(PointAttention):
    """What both attentions between points share: one projection is queries and keys."""

    def __init__(
        self,
        channels: int,
        *,
        key_channels: int | None = None,
        offset: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        key_channels = max(1, channels // 4) if isinstance(channels, int) and key_channels is None else key_channels
        check_sizes(type(self).__name__, channels=channels, key_channels=key_channels)
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.query_key = Pointwise(channels, key_channels, bias=False, **made)
        self.value = Pointwise(channels, channels, **made)
        self._set_up(channels, offset, made)

    def values(self, x: Tensor) -> Tensor:
        """``(batch, 1, channels, *space)``."""
        return self.split(self.value(x))

    def macs(self, space: tuple[int, ...]) -> int:
        n, c, d = math.prod(space), self.channels, self.query_key.out_features
        return n * c * (d + 2 * c) + n * n * (d + c)


class OffsetAttention(_Pairwise):
    """Offset attention of PCT: the softmax of q.k over the outputs, then each output's weights sum to 1.

    Without a scale on the logits. Up to 2048 points the weights are stored; more of them are met in slices, twice,
    and again in the backward pass, so that memory grows with n.

    Args:
        channels: channels of the map and of the result.
        key_channels: of the shared queries and keys; a quarter of channels when None.
        offset: project the difference of the map and what is attended to, as in the paper.
    """

    def attend(self, x: Tensor) -> Tensor:
        q = self.query_key(x).flatten(2)
        return offset_attention(q, q, self.value(x).flatten(2)).unflatten(2, x.shape[2:]).unsqueeze(1)

    def attention_map(self, x: Tensor, *, at: tuple[int, ...]) -> Tensor:
        at = self.checked_position(x, at)
        q = self.query_key(x)
        row = offset_row(q.flatten(2), q.flatten(2), column(self.split(q), at)[:, 0])
        return row.unflatten(1, x.shape[2:]).unsqueeze(1)


class PointSelfAttention(_Pairwise):
    """The self-attention of NPCT: softmax(q.k / sqrt(d)) over the points read, without the offset by itself.

    Args:
        channels: channels of the map and of the result.
        key_channels: of the shared queries and keys; a quarter of channels when None.
        offset: project the difference of the map and what is attended to.
    """

    def __init__(self, channels: int, *, offset: bool = False, **options: Any) -> None:
        super().__init__(channels, offset=offset, **options)

    def attend(self, x: Tensor) -> Tensor:
        q = self.split(self.query_key(x))
        return dot_product_attention(q, q, self.values(x))

    def attention_map(self, x: Tensor, *, at: tuple[int, ...]) -> Tensor:
        self.checked_position(x, at)
        q = self.split(self.query_key(x))
        return attention_row(q, q, at=at, normalization="softmax", scale=q.shape[2] ** -0.5)


class PointExternalAttention(PointAttention):
    """External attention in the place of a point attention: EA(x) = Norm(F M_k^T) M_v with F = W_q x + b.

    Args:
        channels: channels of the map and of the result.
        slots: rows of the memories.
        offset: project the difference of the map and what is attended to; without it what is attended to, the plain
            residual unit.
    """

    def __init__(
        self,
        channels: int,
        *,
        slots: int = 64,
        offset: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_sizes("PointExternalAttention", channels=channels, slots=slots)
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.query = Pointwise(channels, channels, **made)
        self.memory_key = nn.Parameter(torch.empty(slots, channels, **made))
        self.memory_value = nn.Parameter(torch.empty(slots, channels, **made))
        self._set_up(channels, offset, made)
        # As the memories of EANet's unit start.
        for memory in (self.memory_key, self.memory_value):
            nn.init.normal_(memory, std=math.sqrt(2 / channels))

    @property
    def slots(self) -> int:
        return self.memory_key.shape[0]

    def values(self, x: Tensor) -> Tensor:
        """The value memory, ``(batch, 1, channels, slots)``."""
        return self.memory_value.mT.expand(x.shape[0], 1, -1, -1)

    def attend(self, x: Tensor) -> Tensor:
        return external_attention(self.split(self.query(x)), self.memory_key, self.memory_value)

    def slot_maps(self, x: Tensor) -> Tensor:
        """What each slot answers to: ``(batch, 1, slots, *space)``, sums over slots 1."""
        q = self.split(self.query(self.checked(x)))
        weights = normalize_slots(self.memory_key @ q.flatten(3), normalization="double")
        return weights.to(x.dtype).unflatten(3, x.shape[2:])

    def attention_map(self, x: Tensor, *, at: tuple[int, ...]) -> Tensor:
        """The weights ``(batch, 1, slots)`` of a point on the memory slots."""
        return column(self.slot_maps(x), self.checked_position(x, at))

    def position_map(self, x: Tensor, *, at: tuple[int, ...]) -> Tensor:
        """The implied row: the point's weights on the slots times where in the cloud each slot answers."""
        maps = self.slot_maps(x).flatten(3)
        where = maps / maps.sum(3, keepdim=True)
        row = torch.einsum("bhs,bhsn->bhn", self.attention_map(x, at=at), where)
        return row.unflatten(2, x.shape[2:])

    def macs(self, space: tuple[int, ...]) -> int:
        return math.prod(space) * self.channels * 2 * (self.channels + self.slots)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, slots={self.slots}"


class NoAttention(nn.Module):
    """x + ReLU(BN(W x)): the unit without what is attended to, for who asks what attention adds.

    Args:
        channels: channels of the map and of the result.
    """

    def __init__(
        self, channels: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        check_sizes("NoAttention", channels=channels)
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.output = Pointwise(channels, channels, **made)
        self.norm = BatchNorm(channels, **made)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, *space)`` to the same shape."""
        out: Tensor = x + self.norm(self.output(x)).relu()
        return out
