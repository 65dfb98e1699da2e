"""Stand-alone local self-attention in the place of a convolution.

Paper: Ramachandran et al., Stand-Alone Self-Attention in Vision Models (2019), sections 3 and 4.1.
Departures: dense projections, as the published parameter counts demand (the text's grouped ones give other counts).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foveal.errors import OptionError
from foveal.functional.inputs import check_choice, check_number
from foveal.functional.local import Border, attention_row, local_attention
from foveal.layers.base import AttentionLayer, Site, check_heads, check_sizes
from foveal.layers.pointwise import Pointwise, pointwise
from foveal.layers.pooling import pool_blocks


class LocalAttention(AttentionLayer):
    """Every position attends to the window around it, with relative positions, then average pooling if strided.

    ``(batch, channels_in, *space)`` to ``(batch, channels_out, *ceil(space / stride))``. Per position
    3 channels_in channels_out + kernel_size^dims (2 or 3) channels_out multiply-adds, before the pooling.

    Args:
        channels_in: channels of the map.
        channels_out: channels of the result, shared by the heads.
        kernel_size: odd length of the window along every axis.
        heads: the paper's 8 in the trunk.
        stride: attention at the input's resolution, then average pooling of this size at once, as the paper's
            FLOPs demand; a last odd row or column is pooled alone, so sizes equal those of a strided convolution.
        dims: space axes of the map, which is the number of relative tables.
        dilation: step between the window's positions.
        relative: tables ``(heads, kernel_size, depth)``, one an axis, whose depths split that of a head; their
            sharing and start are not in the paper: here each head has its own, from N(0, 1 / depth of a head).
        border: ``"zero"`` as the paper pads, or ``"mask"``: see ``foveal.local_attention``.
        scale: factor on the logits; the paper has none.
        bias: of query, key and value; none in the paper.
        backend: see ``foveal.local_attention``.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        kernel_size: int = 7,
        heads: int = 8,
        stride: int = 1,
        dims: int = 2,
        dilation: int = 1,
        relative: bool = True,
        border: Border = "zero",
        scale: float = 1.0,
        bias: bool = False,
        backend: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_sizes("LocalAttention", channels_in=channels_in, kernel_size=kernel_size, stride=stride)
        check_sizes("LocalAttention", dims=dims, dilation=dilation)
        check_heads("LocalAttention", heads, channels_out=channels_out)
        check_choice("LocalAttention", "border", border, ("zero", "mask"))
        check_number("LocalAttention", "scale", scale)
        if kernel_size % 2 == 0:
            raise OptionError(
                f"LocalAttention: kernel_size must be odd, got {kernel_size}. Use {kernel_size - 1} or "
                f"{kernel_size + 1}; even windows have no centre."
            )
        depth = channels_out // heads
        if relative and depth < dims:
            raise OptionError(
                f"LocalAttention: relative tables of {dims} axes split a head's depth, which is {depth}. "
                f"Use heads={max(channels_out // dims, 1)} or fewer, or relative=False."
            )
        self.channels, self.channels_out, self.heads, self.dims = channels_in, channels_out, heads, dims
        self.kernel_size, self.stride, self.dilation = kernel_size, stride, dilation
        self.border, self.scale, self.backend = border, scale, backend
        made: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        self.query = Pointwise(channels_in, channels_out, **made)
        self.key = Pointwise(channels_in, channels_out, **made)
        self.value = Pointwise(channels_in, channels_out, **made)
        depths = [depth // dims + (axis < depth % dims) for axis in range(dims)] if relative else []
        self.relative = nn.ParameterList(
            nn.Parameter(torch.empty(heads, kernel_size, part, device=device, dtype=dtype)) for part in depths
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the relative tables anew; the projections keep torch's start of a linear layer."""
        for table in self.relative:
            nn.init.normal_(table, std=(self.channels_out // self.heads) ** -0.5)

    @classmethod
    def from_site(cls, site: Site, **options: Any) -> LocalAttention:
        options.setdefault("dims", site.dims or 2)
        return cls(site.channels_in, site.channels_out, stride=site.stride, **options)

    def values(self, x: Tensor) -> Tensor:
        return self.split(self.value(x))

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = (self.split(projected) for projected in self._projected(x))
        return local_attention(
            q,
            k,
            v,
            kernel_size=self.kernel_size,
            relative=list(self.relative) or None,
            dilation=self.dilation,
            scale=self.scale,
            border=self.border,
            backend=self.backend,
        )

    def _projected(self, x: Tensor) -> Sequence[Tensor]:
        """Queries, keys and values."""
        layers = (self.query, self.key, self.value)
        if torch.is_grad_enabled():
            return [layer(x) for layer in layers]
        # Without gradients, which would have to be put together again, one product reads the map once.
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers]) if self.query.bias is not None else None
        return pointwise(x, weight, bias).chunk(3, 1)

    def output_from(self, attended: Tensor, x: Tensor) -> Tensor:
        return pool_blocks(attended.flatten(1, 2), self.stride)

    def attention_map(self, x: Tensor, *, at: tuple[int, ...]) -> Tensor:
        """Weights on the map; with the border ``"zero"`` the padding holds what is missing to a sum of 1."""
        self.checked_position(x, at)
        axes = len(at)
        return attention_row(
            self.split(self.query(x)),
            self.split(self.key(x)),
            at=at,
            kernel_size=[self.kernel_size] * axes,
            relative=list(self.relative),
            dilation=[self.dilation] * axes,
            scale=self.scale,
            border=self.border,
        )

    def macs(self, space: tuple[int, ...]) -> int:
        pairs = self.kernel_size ** len(space) * (3 if len(self.relative) else 2)
        return int(math.prod(space) * self.channels_out * (3 * self.channels + pairs))

    def extra_repr(self) -> str:
        sizes = f"kernel_size={self.kernel_size}, heads={self.heads}, stride={self.stride}"
        return f"{self.channels}, {self.channels_out}, {sizes}"
