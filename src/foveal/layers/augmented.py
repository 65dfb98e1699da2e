"""The attention of attention augmented convolution (AA-Net): dot products with relative positions on each axis.

Paper: Bello et al., Attention Augmented Convolutional Networks (2019), section 3, equations 1 to 5.
Departures: relative tables start from N(0, 1 / depth of a head), which the listing meant (its argument is a mean);
maps of another size than ``size`` crop or stretch the tables, which the paper leaves open.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.errors import OptionError, ShapeError
from foveal.functional.dot_product import attention_row, dot_product_attention
from foveal.functional.sizes import open_sizes
from foveal.layers.base import AttentionLayer, Site, check_heads, check_sizes
from foveal.layers.pointwise import Pointwise
from foveal.layers.pooling import pool_overlapping


class AugmentedAttention(AttentionLayer):
    """W_o concat_h softmax((Q K^T + S_H + S_W) / sqrt(depth)) V, then average pooling if strided.

    ``(batch, channels_in, *space)`` to ``(batch, channels_out, *ceil(space / stride))``.

    Args:
        channels_in: channels of the map.
        channels_out: channels of the result and of the values.
        key_channels: of queries and keys; None takes twice channels_out and at least 20 a head, as the paper.
        heads: 8 in the paper's ResNets.
        size: the map's size, which the relative tables ``(1, 2 length - 1, depth)``, shared by the heads, are made
            for; None leaves positions out. Smaller maps use the middle of the tables, larger ones stretch them
            linearly.
        stride: attention at the input's resolution, then 3-wide average pooling of this stride and padding 1.
        bias: of all projections; none in the paper.
        backend: of ``foveal.dot_product_attention``.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        key_channels: int | None = None,
        heads: int = 8,
        size: Sequence[int] | None = None,
        stride: int = 1,
        bias: bool = False,
        backend: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_sizes(
            "AugmentedAttention", channels_in=channels_in, heads=heads, channels_out=channels_out, stride=stride
        )
        if key_channels is None:
            key_channels = max(20 * heads, math.ceil(2 * channels_out / heads) * heads)
        check_heads("AugmentedAttention", heads, key_channels=key_channels, channels_out=channels_out)
        if size is not None and not isinstance(size, (tuple, list)):
            raise OptionError(f"AugmentedAttention: size must be one length a space axis, or None, got {size!r}.")
        check_sizes("AugmentedAttention", **{f"size[{axis}]": length for axis, length in enumerate(size or ())})
        self.channels, self.channels_out, self.heads = channels_in, channels_out, heads
        self.stride, self.backend = stride, backend
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.query = Pointwise(channels_in, key_channels, bias=bias, **made)
        self.key = Pointwise(channels_in, key_channels, bias=bias, **made)
        self.value = Pointwise(channels_in, channels_out, bias=bias, **made)
        self.output = Pointwise(channels_out, channels_out, bias=bias, **made)
        self.relative = nn.ParameterList(
            nn.Parameter(torch.empty(1, 2 * length - 1, key_channels // heads, **made)) for length in size or ()
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the relative tables anew."""
        for table in self.relative:
            nn.init.normal_(table, std=table.shape[2] ** -0.5)

    @classmethod
    def from_site(cls, site: Site, **options: Any) -> AugmentedAttention:
        if "size" not in options:
            if site.size is None:
                raise OptionError(
                    f"AugmentedAttention at {site.name}: relative tables need the map's size, which is unknown. "
                    "Pass example= to the graft, or size=(rows, columns) or size=None (no positions) to like()."
                )
            options = {**options, "size": site.size}
        return cls(site.channels_in, site.channels_out, stride=site.stride, **options)

    def values(self, x: Tensor) -> Tensor:
        return self.split(self.value(x))

    def tables(self, space: Sequence[int]) -> list[Tensor]:
        """The relative tables for a map of this size."""
        if len(self.relative) not in (0, len(space)):
            raise ShapeError(
                f"AugmentedAttention: made for maps of {len(self.relative)} space axes, got {len(space)}: "
                f"{tuple(space)}."
            )
        return [_fit(table, length) for table, length in zip(self.relative, space, strict=False)]

    def attend(self, x: Tensor) -> Tensor:
        q, k = self.split(self.query(x)), self.split(self.key(x))
        tables = self.tables(x.shape[2:]) or None
        return dot_product_attention(q, k, self.values(x), relative=tables, backend=self.backend)

    def output_from(self, attended: Tensor, x: Tensor) -> Tensor:
        return pool_overlapping(self.output(attended.flatten(1, 2)), self.stride)

    def attention_map(self, x: Tensor, *, at: tuple[int, ...]) -> Tensor:
        self.checked_position(x, at)
        q, k = self.split(self.query(x)), self.split(self.key(x))
        return attention_row(q, k, at=at, normalization="softmax", tables=self.tables(x.shape[2:]))

    def macs(self, space: tuple[int, ...]) -> int:
        n, c, d, e = math.prod(space), self.channels, self.query.out_features, self.channels_out
        cost = n * (2 * c * d + c * e + e * e)
        depth = d // self.heads
        if self.relative:
            cost += n * d * sum(space)
            depth += sum(space)
        # The fused product has one depth for queries, keys and values.
        return cost + 2 * self.heads * n * n * max(depth, e // self.heads)

    def extra_repr(self) -> str:
        return f"{self.channels}, {self.channels_out}, key_channels={self.query.out_features}, heads={self.heads}"


def _fit(table: Tensor, length: int) -> Tensor:
    """``(1, 2 length - 1, depth)``: the middle offsets of a longer table, or a shorter one stretched linearly."""
    have, want = table.shape[1], 2 * length - 1
    if open_sizes((length,)):
        return _fit_open(table, length)
    if want <= have:
        return table.narrow(1, (have - want) // 2, want)
    return F.interpolate(table.mT, want, mode="linear", align_corners=True).mT


def _fit_open(table: Tensor, length: int) -> Tensor:
    """The same without a branch on the length: row i lies at the table's middle plus (i - length + 1) steps."""
    have = table.shape[1]
    # In a longer table a step is one row; in a shorter one the steps reach from its first row to its last.
    longest = torch.full((), length - 1, dtype=torch.float32, device=table.device).clamp(min=1)
    step = ((have // 2) / longest).clamp(max=1)
    place = have // 2 + torch.arange(1 - length, length, device=table.device) * step
    below = place.floor().clamp(0, have - 1)
    above = (below + 1).clamp(max=have - 1)
    part = (place - below)[:, None].to(table.dtype)
    return table[:, below.long()] * (1 - part) + table[:, above.long()] * part
