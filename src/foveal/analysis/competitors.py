"""Layers of other libraries as modules of a channels-first map, for ``foveal bench``."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.errors import BackendError
from foveal.layers.local import LocalAttention
from foveal.layers.non_local import NonLocal


class NonLocalBySDPA(nn.Module):
    """The non-local block's own weights around torch's scaled_dot_product_attention."""

    def __init__(self, layer: NonLocal) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        own = self.layer
        q, k, v = (project(x).flatten(2).mT.unsqueeze(1) for project in (own.query, own.key, own.value))
        mixed = F.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1).mT
        out: Tensor = x + own.norm(own.output(mixed.unflatten(2, x.shape[2:])))
        return out


class LocalByFlex(nn.Module):
    """Local attention with relative positions and a masked border, its window a mask of torch's flex_attention.

    Compiled on a GPU. On a CPU it runs uncompiled, which is slow and stores all n x n scores, and has no backward.
    """

    def __init__(self, layer: LocalAttention, size: tuple[int, ...], device: torch.device) -> None:
        super().__init__()
        if len(size) != 2:
            raise BackendError(f"flex: this side is written for two space axes, got {len(size)}.")
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        self.layer, self.columns = layer, size[1]
        n = size[0] * size[1]
        half = layer.kernel_size // 2

        def inside(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            down, right = self._steps(query, key)
            return (down.abs() <= half) & (right.abs() <= half)

        self.mask = create_block_mask(inside, None, None, n, n, device=str(device))
        attend: Any = flex_attention
        self.attend = torch.compile(attend) if device.type == "cuda" else attend

    def _steps(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns from the query to the key."""
        return key // self.columns - query // self.columns, key % self.columns - query % self.columns

    def forward(self, x: Tensor) -> Tensor:
        own = self.layer
        assert own.key is not None
        q, k, v = (own.split(project(x)).flatten(3).mT for project in (own.query, own.key, own.value))
        parts = q.split([table.shape[2] for table in own.relative], dim=3)
        logits = [torch.einsum("bhnd,hod->bhno", part, t) for part, t in zip(parts, own.relative, strict=True)]
        last = own.kernel_size - 1

        def with_positions(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            for table, step in zip(logits, self._steps(query, key), strict=True):
                score = score + table[b, h, query, (step + last // 2).clamp(0, last)]
            return score

        out = self.attend(q, k, v, score_mod=with_positions, block_mask=self.mask, scale=own.scale)
        return own.output_from(out.mT.unflatten(3, x.shape[2:]), x)


class Natten(nn.Module):
    """NATTEN's neighbourhood attention, whose windows are shifted inwards at the border, without relative positions."""

    def __init__(self, channels: int, heads: int, kernel_size: int) -> None:
        super().__init__()
        if find_spec("natten") is None:
            raise BackendError("NATTEN is not installed.")
        from natten import NeighborhoodAttention2D

        self.attention = NeighborhoodAttention2D(channels, num_heads=heads, kernel_size=kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(x.movedim(1, -1)).movedim(-1, 1)
        return out
