"""The non-local block.

Paper: Wang et al., Non-local Neural Networks (2018), sections 3.2 and 3.3.
Departures: none; ``pool`` is the paper's subsampling, ``norm=False`` leaves out its zero-started batch norm.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.functional.dot_product import Normalization, attention_row, dot_product_attention
from foveal.functional.inputs import check_choice
from foveal.layers.base import AttentionLayer, Site, check_sizes
from foveal.layers.pointwise import BatchNorm, Pointwise


class NonLocal(AttentionLayer):
    """x + BN(W_z softmax(theta(x) phi(x)^T) g(x)): every position attends to all, starting as the identity.

    ``(batch, channels, *space)`` to the same shape; one head. theta, phi, g, W_z are ``query``, ``key``, ``value``,
    ``output``.

    Args:
        channels: channels of the map and of the result.
        key_channels: of queries and keys; half of channels when None.
        value_channels: of the values; half of channels when None.
        normalization: ``"softmax"``: embedded Gaussian, without a scale; ``"scaling"``: dot product over n, which
            costs no (n, n) products.
        pool: max pooling of keys and values by 2 along every axis.
        norm: batch normalisation at the end, whose scale starts at zero so that the block starts as the identity.
        residual: add the map.
        bias: of all projections.
        backend: of ``foveal.dot_product_attention``.
    """

    def __init__(
        self,
        channels: int,
        *,
        key_channels: int | None = None,
        value_channels: int | None = None,
        normalization: Normalization = "softmax",
        pool: bool = False,
        norm: bool = True,
        residual: bool = True,
        bias: bool = True,
        backend: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_sizes("NonLocal", channels=channels)
        check_choice("NonLocal", "normalization", normalization, ("softmax", "scaling"))
        half = max(channels // 2, 1)
        key_channels = half if key_channels is None else key_channels
        value_channels = half if value_channels is None else value_channels
        check_sizes("NonLocal", key_channels=key_channels, value_channels=value_channels)
        self.channels, self.heads, self.pool, self.residual = channels, 1, pool, residual
        self.normalization: Normalization = normalization
        self.backend = backend
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.query = Pointwise(channels, key_channels, bias=bias, **made)
        self.key = Pointwise(channels, key_channels, bias=bias, **made)
        self.value = Pointwise(channels, value_channels, bias=bias, **made)
        self.output = Pointwise(value_channels, channels, bias=bias, **made)
        self.norm: nn.Module = nn.Identity()
        if norm:
            self.norm = BatchNorm(channels, **made)
            nn.init.zeros_(self.norm.weight)

    @classmethod
    def from_site(cls, site: Site, **options: Any) -> NonLocal:
        return cls(site.channels_out, **options)

    def values(self, x: Tensor) -> Tensor:
        """``(batch, 1, depth, *keys)``, the keys' space being halved where they are pooled."""
        return self.split(self._pooled(self.value(x)))

    def _pooled(self, x: Tensor) -> Tensor:
        if not self.pool:
            return x
        return (F.max_pool1d, F.max_pool2d, F.max_pool3d)[x.dim() - 3](x, 2, ceil_mode=True)

    def attend(self, x: Tensor) -> Tensor:
        q, k = self.split(self.query(x)), self.split(self._pooled(self.key(x)))
        scale = 1.0 if self.normalization == "softmax" else None
        return dot_product_attention(
            q, k, self.values(x), normalization=self.normalization, scale=scale, backend=self.backend
        )

    def output_from(self, attended: Tensor, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.output(attended.flatten(1, 2)))
        return x + out if self.residual else out

    def attention_map(self, x: Tensor, *, at: tuple[int, ...]) -> Tensor:
        self.checked_position(x, at)
        q, k = self.split(self.query(x)), self.split(self._pooled(self.key(x)))
        return attention_row(q, k, at=at, normalization=self.normalization, scale=1.0)

    def position_map(self, x: Tensor, *, at: tuple[int, ...]) -> Tensor:
        """Where keys are pooled, each weight is shared evenly by the positions that were pooled."""
        row = self.attention_map(x, at=at)
        if not self.pool:
            return row
        for axis, length in enumerate(x.shape[2:]):
            owner = torch.arange(length, device=x.device) // 2
            shared = row.new_zeros(row.shape[2 + axis]).index_add_(0, owner, row.new_ones(length))
            shape = [1] * row.dim()
            shape[2 + axis] = -1
            row = (row / shared.reshape(shape)).index_select(2 + axis, owner)
        return row

    def macs(self, space: tuple[int, ...]) -> int:
        n, c, d, e = math.prod(space), self.channels, self.query.out_features, self.value.out_features
        m = math.prod(-(-length // 2) for length in space) if self.pool else n
        cost = n * c * (2 * d + 2 * e)
        if self.normalization == "softmax":
            return cost + 2 * n * m * max(d, e)
        return cost + min((n + m) * d * e, n * m * (d + e))

    def extra_repr(self) -> str:
        return f"{self.channels}, key_channels={self.query.out_features}, {self.normalization}, pool={self.pool}"
