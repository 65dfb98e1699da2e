"""Efficient attention as a residual unit.

Paper: Shen et al., Efficient Attention: Attention with Linear Complexities (2018), section 3.
Departures: ``projection="always"`` and the biases follow the authors' code; ``"auto"`` and ``bias=False`` the paper.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from foveal.functional.efficient import (
    Normalization,
    context,
    efficient_attention,
    normalize_keys,
    normalize_queries,
)
from foveal.functional.inputs import autocast, check_choice, refuse_forward_mode
from foveal.functional.parts import Part, part_of
from foveal.functional.sizes import example_sizes
from foveal.kernels.cpu.efficient import SOFTMAX, context_and_statistics, read, why_not
from foveal.kernels.cpu.efficient_folded import folded_efficient_attention
from foveal.layers.base import AttentionLayer, Site, check_heads, check_sizes, column
from foveal.layers.pointwise import Pointwise, channels_last, product


class EfficientAttention(AttentionLayer):
    """x + W_o rho_q(Q) (rho_k(K)^T V): cost linear in the number of positions.

    ``(batch, channels, *space)`` to the same shape. The linear maps next to the context are multiplied with it
    where that costs less: 4 key_channels channels multiply-adds a position instead of 2 channels (key_channels +
    value_channels) and the two products. State and result are the same, up to rounding, in training too.

    Args:
        channels: channels of the map and of the result.
        key_channels: of queries and keys, shared by the heads; 64 in all experiments of the paper.
        value_channels: of the values; ``channels`` when None.
        heads: 1 in the paper; more are the authors' code.
        normalization: ``"softmax"`` or ``"scaling"``.
        projection: ``"always"`` projects the result, ``"auto"`` only where value_channels differ from channels.
        residual: add the map.
        bias: of all projections.
        backend: evaluate unfolded through this backend of ``foveal.efficient_attention``; None folds.
    """

    def __init__(
        self,
        channels: int,
        *,
        key_channels: int = 64,
        value_channels: int | None = None,
        heads: int = 1,
        normalization: Normalization = "softmax",
        projection: Literal["always", "auto"] = "always",
        residual: bool = True,
        bias: bool = True,
        backend: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        value_channels = channels if value_channels is None else value_channels
        check_heads("EfficientAttention", heads, key_channels=key_channels, value_channels=value_channels)
        check_sizes("EfficientAttention", channels=channels)
        check_choice("EfficientAttention", "projection", projection, ("always", "auto"))
        check_choice("EfficientAttention", "normalization", normalization, ("softmax", "scaling"))
        self.channels, self.heads, self.backend = channels, heads, backend
        self.normalization: Normalization = normalization
        self.residual = residual
        made: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        self.query = Pointwise(channels, key_channels, **made)
        self.key = Pointwise(channels, key_channels, **made)
        self.value = Pointwise(channels, value_channels, **made)
        projects = projection == "always" or value_channels != channels
        self.output: nn.Module = Pointwise(value_channels, channels, **made) if projects else nn.Identity()

    @classmethod
    def from_site(cls, site: Site, **options: Any) -> EfficientAttention:
        return cls(site.channels_out, **options)

    def values(self, x: Tensor) -> Tensor:
        return self.split(self.value(x))

    def attend(self, x: Tensor) -> Tensor:
        q, k = self.split(self.query(x)), self.split(self.key(x))
        return efficient_attention(q, k, self.values(x), normalization=self.normalization, backend=self.backend)

    def output_from(self, attended: Tensor, x: Tensor) -> Tensor:
        out: Tensor = self.output(attended.flatten(1, 2))
        return x + out if self.residual else out

    def forward(self, x: Tensor) -> Tensor:
        self.checked(x)
        if self.backend is not None:
            return self.output_from(self.attend(x), x)
        fold_value, fold_output = self._folds(math.prod(example_sizes(x.shape[2:])))
        if fold_value and fold_output and self.normalization == "softmax" and why_not(*autocast(x)) is None:
            return self._native(x)
        q = normalize_queries(self.split(self.query(x)).flatten(3), self.normalization)
        k = self.split(self.key(x)).flatten(3)
        held = self._folded_context(k, x) if fold_value else self._context(k, x)
        if not fold_output:
            return self.output_from((held.mT @ q).unflatten(3, x.shape[2:]), x)
        out = self._read(q.flatten(1, 2), self._through_output(held), x).unflatten(2, x.shape[2:])
        return x + out if self.residual else out

    def part(self, x: Tensor, positions: int) -> Part:
        """What these positions add to the context of a map of so many; see ``foveal.streaming``."""
        if not self._folds(positions)[0]:
            k = self.split(self.key(x)).flatten(3)
            return part_of(k, self.values(x).flatten(3), exponential=self.normalization == "softmax")
        flat = x.flatten(2).unsqueeze(1)
        if self.normalization == "scaling" or self.asks_gradients(x) or why_not(x) is not None:
            return part_of(self.split(self.key(x)).flatten(3), flat, exponential=self.normalization == "softmax")
        held, stats = context_and_statistics(flat, *self._native_linear(self.key))
        greatest, total = (self.split(s.squeeze(1)) for s in stats.unbind(2))
        return Part(greatest, total, self.split(held.squeeze(1)) * total[..., None], flat.shape[3])

    def context_from(self, whole: Part) -> Tensor:
        """The context ``(batch, heads, d, e)`` from the sum of all parts."""
        assert whole.held is not None
        over = whole.total if self.normalization == "softmax" else torch.full_like(whole.total, whole.positions)
        held, share = whole.held / over[..., None], (whole.total / over)[..., None]
        return self._through_value(held, share) if self._folds(whole.positions)[0] else held

    def read(self, held: Tensor, x: Tensor, positions: int) -> Tensor:
        """The layer's result at some of so many positions, from the context of all."""
        if not self._folds(positions)[1]:
            q = normalize_queries(self.split(self.query(x)).flatten(3), self.normalization)
            return self.output_from((held.mT.to(q.dtype) @ q).unflatten(3, x.shape[2:]), x)
        small = self._through_output(held)
        if self.normalization == "scaling" or why_not(x) is not None:
            q = normalize_queries(self.split(self.query(x)).flatten(3), self.normalization)
            out = self._read(q.flatten(1, 2), small.to(q.dtype), x)
        else:
            refuse_forward_mode("EfficientAttention", x, *self.parameters())
            weight, bias = self._native_linear(self.query)
            out = read(
                x.flatten(2).unsqueeze(1),
                small.float().contiguous().unsqueeze(1),
                weights=SOFTMAX,
                weight=weight,
                bias=bias,
                out_bias=self._native_linear(self.output)[1],
                groups=self.heads,
            ).squeeze(1)
        out = out.unflatten(2, x.shape[2:])
        return x + out if self.residual else out

    def _native_linear(self, layer: nn.Module) -> tuple[Tensor, Tensor | None]:
        """Weight and bias as the kernels take them, for one head."""
        assert isinstance(layer, Pointwise)
        bias: Tensor | None = layer.bias
        return layer.weight.float().contiguous()[None], None if bias is None else bias.float().contiguous()[None]

    def _through_output(self, held: Tensor) -> Tensor:
        """The context multiplied with the output projection, ``(batch, d, channels)``."""
        assert isinstance(self.output, Pointwise)
        return (held @ self.output.weight.mT.unflatten(0, (self.heads, -1)).to(held.dtype)).flatten(1, 2)

    def _native(self, x: Tensor) -> Tensor:
        """Everything in two passes over blocks of positions; under autocast the sum with the map keeps its type."""
        refuse_forward_mode("EfficientAttention", x, *self.parameters())
        (low,) = autocast(x)
        assert isinstance(self.output, Pointwise)
        linear = [(p.weight, p.bias) for p in (self.query, self.key, self.value, self.output)]
        within = self.residual and low.dtype == x.dtype
        out = folded_efficient_attention(low.flatten(2), *linear, heads=self.heads, residual=within)
        out = out.unflatten(2, x.shape[2:])
        return x + out if self.residual and not within else out

    def _read(self, q: Tensor, read: Tensor, x: Tensor) -> Tensor:
        """``(batch, channels, n)`` from queries ``(batch, d, n)`` and the projected context, laid out like ``x``."""
        bias = self.output.bias
        assert bias is None or isinstance(bias, Tensor)
        if channels_last(x):
            out = q.mT @ read
            return (out if bias is None else out + bias.to(out.dtype)).mT
        return product(read.mT, q, bias)

    def _context(self, k: Tensor, x: Tensor) -> Tensor:
        return context(k, self.values(x).flatten(3), normalization=self.normalization)

    def _folded_context(self, k: Tensor, x: Tensor) -> Tensor:
        """rho_k(K)^T (X W_v + b_v) as (rho_k(K)^T X) W_v + (rho_k(K)^T 1) b_v."""
        weights = normalize_keys(k, self.normalization, None)
        held = (weights.flatten(1, 2) @ x.flatten(2).mT.to(weights.dtype)).unflatten(1, k.shape[1:3])
        return self._through_value(held, None if self.value.bias is None else weights.sum(3, keepdim=True))

    def _through_value(self, held: Tensor, share: Tensor | None) -> Tensor:
        """The context of the map multiplied with the value projection, whose bias has the sum of the weights."""
        held = held @ self.value.weight.unflatten(0, (self.heads, -1)).mT.to(held.dtype)
        if self.value.bias is not None:
            assert share is not None
            held = held + share * self.value.bias.reshape(self.heads, 1, -1).to(held.dtype)
        return held

    def _folds(self, n: int) -> tuple[bool, bool]:
        """Whether multiplying the context with the value and the output projection costs less than applying them."""
        d, e = self.query.out_features, self.value.out_features
        mix, c = d * e // self.heads, self.channels
        value = n * d * c + mix * c < n * c * e + n * mix
        if not isinstance(self.output, Pointwise):
            return value, False
        return value, n * d * c + mix * c < n * mix + n * e * c

    def macs(self, space: tuple[int, ...]) -> int:
        n, c, d, e = math.prod(space), self.channels, self.query.out_features, self.value.out_features
        mix = d * e // self.heads
        fold_value, fold_output = self._folds(n)
        cost = 2 * n * c * d
        cost += n * d * c + mix * c if fold_value else n * c * e + n * mix
        if not isinstance(self.output, Pointwise):
            return cost + n * mix
        return cost + (n * d * c + mix * c if fold_output else n * mix + n * e * c)

    def attention_map(self, x: Tensor, *, at: tuple[int, ...]) -> Tensor:
        """The implied row: the query's coefficients times the key channels' global maps."""
        return torch.einsum("bhd,bhd...->bh...", self.coefficients(x, at=at), self.global_maps(x))

    def coefficients(self, x: Tensor, *, at: tuple[int, ...]) -> Tensor:
        """rho_q(Q) of one position: how much of each global map it takes, ``(batch, heads, depth)``."""
        self.checked_position(x, at)
        q = self.split(self.query(x)).flatten(3)
        return column(normalize_queries(q, self.normalization).unflatten(3, x.shape[2:]), at)

    def global_maps(self, x: Tensor) -> Tensor:
        """rho_k(K): one map a key channel, ``(batch, heads, depth, *space)``, which all queries share."""
        k = self.split(self.key(self.checked(x))).flatten(3)
        return normalize_keys(k, self.normalization, None).unflatten(3, x.shape[2:])

    def extra_repr(self) -> str:
        return f"{self.channels}, key_channels={self.query.out_features}, heads={self.heads}, {self.normalization}"
