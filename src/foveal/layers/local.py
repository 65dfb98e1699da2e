"""Stand-alone local self-attention in the place of a convolution.

Paper: Ramachandran et al., Stand-Alone Self-Attention in Vision Models (2019), sections 3 and 4.1.
Departures: dense projections, as the published parameter counts demand; ``grouped`` has the text's, which give others.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from foveal.errors import OptionError
from foveal.functional.inputs import check_choice, check_number
from foveal.functional.local import Border, attention_row, local_attention, packed_local_attention, packs
from foveal.layers.base import AttentionLayer, Site, check_heads, check_sizes
from foveal.layers.pointwise import GroupedPointwise, Pointwise, pointwise
from foveal.layers.pooling import pool_blocks

# The C library gives blocks of more than 32 MB back to the system at once; fresh pages take longer than to fill them.
LARGEST_BLOCK = 28 * 2**20


class LocalAttention(AttentionLayer):
    """Every position attends to the window around it, with relative positions, then average pooling if strided.

    ``(batch, channels_in, *space)`` to ``(batch, channels_out, *ceil(space / stride))``. Per position
    3 channels_in channels_out + kernel_size^dims (2 or 3) channels_out multiply-adds, before the pooling; grouped
    projections take a heads-th of theirs.

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
        content: False leaves out the keys: logits are q.r alone, and there is no key projection.
        grouped: project every head from its own share of the channels, as the paper's text says.
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
        content: bool = True,
        grouped: bool = False,
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
        if grouped:
            check_heads("LocalAttention", heads, channels_in=channels_in)
        if not content and not relative:
            raise OptionError(
                "LocalAttention: content=False takes its logits from the relative tables, got relative=False as well. "
                "Pass relative=True, or average with a pooling layer."
            )
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
        self.groups = heads if grouped else 1
        made: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        self.query = self._projection(**made)
        self.key = self._projection(**made) if content else None
        self.value = self._projection(**made)
        depths = [depth // dims + (axis < depth % dims) for axis in range(dims)] if relative else []
        self.relative = nn.ParameterList(
            nn.Parameter(torch.empty(heads, kernel_size, part, device=device, dtype=dtype)) for part in depths
        )
        self.reset_parameters()

    def _projection(self, **made: Any) -> Pointwise:
        if self.groups == 1:
            return Pointwise(self.channels, self.channels_out, **made)
        return GroupedPointwise(self.channels, self.channels_out, groups=self.groups, **made)

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
        axes = x.dim() - 2
        settings: dict[str, Any] = {
            "kernel_size": [self.kernel_size] * axes,
            "dilation": [self.dilation] * axes,
            "relative": list(self.relative) or None,
            "scale": self.scale,
            "border": self.border,
        }
        if self.key is not None and self.groups == 1 and packs(self.backend, x, settings["kernel_size"]):
            parts = self._parts(x)
            if parts == 1:
                return self._attend_packed(x, settings)
            return torch.cat([self._attend_packed(part, settings) for part in x.chunk(parts)])
        q = self.query(x)
        q, k, v = (self.split(projected) for projected in (q, self._keys(x, q), self.value(x)))
        return local_attention(q, k, v, backend=self.backend, **settings)

    def _attend_packed(self, x: Tensor, settings: dict[str, Any]) -> Tensor:
        assert self.key is not None
        qkv = self._projected(x, self.query, self.key, self.value)
        return packed_local_attention(qkv.unflatten(1, (3 * self.heads, -1)), **settings)

    def _parts(self, x: Tensor) -> int:
        """Of the batch, one after the other where nothing is kept for gradients, so that no block is too large."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return 1
        size = 3 * self.channels_out * x[:, 0].numel() * x.element_size()
        return -(-size // LARGEST_BLOCK) or 1

    def _projected(self, x: Tensor, *layers: Pointwise) -> Tensor:
        """The maps of several projections, side by side, by one product that reads the map once."""
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers]) if layers[0].bias is not None else None
        return pointwise(x, weight, bias)

    def _keys(self, x: Tensor, q: Tensor) -> Tensor:
        """Keys; without content zeros that take no memory, which leave q.r of the logits."""
        return q.new_zeros(()).expand_as(q) if self.key is None else self.key(x)

    def output_from(self, attended: Tensor, x: Tensor) -> Tensor:
        return pool_blocks(attended.flatten(1, 2), self.stride)

    def attention_map(self, x: Tensor, *, at: tuple[int, ...]) -> Tensor:
        """Weights on the map; with the border ``"zero"`` the padding holds what is missing to a sum of 1."""
        self.checked_position(x, at)
        axes, q = len(at), self.query(x)
        return attention_row(
            self.split(q),
            self.split(self._keys(x, q)),
            at=at,
            kernel_size=[self.kernel_size] * axes,
            relative=list(self.relative),
            dilation=[self.dilation] * axes,
            scale=self.scale,
            border=self.border,
        )

    def macs(self, space: tuple[int, ...]) -> int:
        # Products with keys of zero are evaluated too.
        pairs = self.kernel_size ** len(space) * (3 if len(self.relative) else 2)
        maps = 2 if self.key is None else 3
        return int(math.prod(space) * self.channels_out * (maps * self.channels // self.groups + pairs))

    def extra_repr(self) -> str:
        sizes = f"kernel_size={self.kernel_size}, heads={self.heads}, stride={self.stride}"
        return f"{self.channels}, {self.channels_out}, {sizes}"
