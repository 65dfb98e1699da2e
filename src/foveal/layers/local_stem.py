"""The attention stem of stand-alone self-attention networks.

Paper: Ramachandran et al., Stand-Alone Self-Attention in Vision Models (2019), section 3.2 and appendix A.1.
Departures: none known; the number of mixtures, the width and the size of the embeddings are not stated, so they are
arguments (published FLOPs fit width 64 and about 4 mixtures). Of the two other kinds of values that the paper compares,
the convolution's size is not stated either; published FLOPs fit that of a block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.errors import OptionError, ShapeError
from foveal.functional.dot_product import attention_row, dot_product_attention
from foveal.functional.inputs import check_choice, on_last
from foveal.functional.sizes import first, open_sizes
from foveal.layers.base import AttentionLayer, Site, check_heads, check_sizes
from foveal.layers.pointwise import BatchNorm, Pointwise

Values = Literal["mixture", "plain", "conv"]


class LocalAttentionStem(AttentionLayer):
    """Attention inside aligned blocks with values that depend on the place in the block, then norm, ReLU, max pool.

    ``(batch, channels_in, *space)`` to ``(batch, channels_out, *ceil(space / block))``. A value is a mixture of linear
    maps, v = sum_m p(place, m) W_m x, p the softmax over m of (row embedding + column embedding) . mixture_m. Blocks
    at an edge that they overhang attend to what is there.

    Args:
        channels_in: channels of the image.
        channels_out: width; 64 feeds the paper's trunk.
        block: side of a block and of the max pool, 4 in the paper.
        heads: 4 in the paper.
        values: ``"mixture"``; ``"plain"``: one linear map, wherever in the block; or ``"conv"``: a convolution of the
            image whose window is as large as a block.
        mixtures: value maps that are mixed.
        embedding: length of the place embeddings; None takes a head's depth.
        dims: space axes of the map.
        backend: of ``foveal.dot_product_attention``.
    """

    def __init__(
        self,
        channels_in: int = 3,
        channels_out: int = 64,
        *,
        block: int = 4,
        heads: int = 4,
        values: Values = "mixture",
        mixtures: int = 4,
        embedding: int | None = None,
        dims: int = 2,
        backend: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_sizes("LocalAttentionStem", channels_in=channels_in, block=block, mixtures=mixtures, dims=dims)
        check_heads("LocalAttentionStem", heads, channels_out=channels_out)
        check_choice("LocalAttentionStem", "values", values, ("mixture", "plain", "conv"))
        self.channels, self.channels_out, self.heads = channels_in, channels_out, heads
        self.block, self.dims, self.backend = block, dims, backend
        self.kind: Values = values
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        embedding = channels_out // heads if embedding is None else embedding
        check_sizes("LocalAttentionStem", embedding=embedding)
        mixed = values == "mixture"
        self.query = Pointwise(channels_in, channels_out, bias=False, **made)
        self.key = Pointwise(channels_in, channels_out, bias=False, **made)
        self.value: nn.Conv1d | nn.Conv2d | nn.Conv3d | Pointwise
        if values == "conv":
            conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
            self.value = conv(channels_in, channels_out, block, bias=False, **made)
        else:
            self.value = Pointwise(channels_in, (mixtures if mixed else 1) * channels_out, bias=False, **made)
        self.place = nn.ParameterList(nn.Parameter(torch.empty(block, embedding, **made)) for _ in range(dims * mixed))
        self.mixture = nn.Parameter(torch.empty(mixtures, embedding, **made)) if mixed else None
        self.norm = BatchNorm(channels_out, **made)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Embeddings from N(0, 1 / their length), so that mixing starts near even."""
        for table in self.place if self.mixture is None else (*self.place, self.mixture):
            nn.init.normal_(table, std=table.shape[1] ** -0.5)

    @classmethod
    def from_site(cls, site: Site, **options: Any) -> LocalAttentionStem:
        options.setdefault("dims", site.dims or 2)
        return cls(site.channels_in, site.channels_out, **options)

    def place_weights(self) -> Tensor:
        """p, ``(places of a block, mixtures)``; only values that are mixtures have it."""
        if self.mixture is None:
            raise OptionError(
                "LocalAttentionStem: place_weights() are those of mixed values, which this stem has not. "
                "Build it with values='mixture'."
            )
        places = self.place[0].new_zeros((1,) * self.dims + (1,))
        for axis, table in enumerate(self.place):
            shape = [1] * self.dims + [-1]
            shape[axis] = self.block
            places = places + table.reshape(shape)
        return (places.reshape(-1, places.shape[-1]) @ self.mixture.mT).softmax(-1)

    def _counts(self, space: Sequence[int]) -> list[int]:
        """Blocks along each axis, the last one perhaps incomplete."""
        return [(length - 1) // self.block + 1 for length in space]

    def _blocks(self, x: Tensor) -> Tensor:
        """``(batch, channels, *space)`` to ``(batch, blocks, channels, places of a block)``, padded with zeros."""
        space, axes = x.shape[2:], self.dims
        behind = [n * self.block - length for n, length in zip(self._counts(space), space, strict=True)]
        if open_sizes(space) or any(behind):
            x = F.pad(x, [side for pad in reversed(behind) for side in (0, pad)])
        split = [m for length in x.shape[2:] for m in (length // self.block, self.block)]
        channels = x.shape[1]
        x = x.reshape(*x.shape[:2], *split)
        x = x.permute(0, *(2 + 2 * a for a in range(axes)), 1, *(3 + 2 * a for a in range(axes)))
        return x.reshape(x.shape[0], math.prod(x.shape[1 : 1 + axes]), channels, self.block**axes)

    def _from_blocks(self, x: Tensor, space: tuple[int, ...]) -> Tensor:
        """The inverse: ``(batch, blocks, channels, places)`` to ``(batch, channels, *space)``."""
        axes, count = self.dims, self._counts(space)
        x = x.reshape(x.shape[0], *count, x.shape[2], *[self.block] * axes)
        x = x.permute(0, 1 + axes, *(m for a in range(axes) for m in (1 + a, 2 + axes + a)))
        x = x.reshape(*x.shape[:2], *(n * self.block for n in count))
        for axis, length in enumerate(space):
            x = first(x, 2 + axis, length)
        return x

    def _block_values(self, x: Tensor, blocks: Tensor) -> Tensor:
        """``(batch, blocks, channels_out, places)`` from the image or its blocks."""
        if not isinstance(self.value, Pointwise):
            # Of a window of even length the longer part lies after the place.
            pad = [side for _ in range(self.dims) for side in ((self.block - 1) // 2, self.block // 2)]
            return self._blocks(self.value(F.pad(x, pad)))
        if self.mixture is None:
            return torch.einsum("bncp,oc->bnop", blocks, self.value.weight)
        # The mixture is folded into one matrix a place.
        maps = self.value.weight.unflatten(0, (-1, self.channels_out))
        by_place = torch.einsum("pm,moc->poc", self.place_weights(), maps)
        return torch.einsum("bncp,poc->bnop", blocks, by_place)

    def values(self, x: Tensor) -> Tensor:
        return self.split(self._from_blocks(self._block_values(x, self._blocks(x)), tuple(x.shape[2:])))

    def attend(self, x: Tensor) -> Tensor:
        space = tuple(self.checked(x).shape[2:])
        blocks = self._blocks(x)
        q, k = (torch.einsum("bncp,oc->bnop", blocks, layer.weight) for layer in (self.query, self.key))
        flat = [m.flatten(0, 1).unflatten(1, (self.heads, -1)) for m in (q, k, self._block_values(x, blocks))]
        mask = None
        if open_sizes(space) or any(length % self.block for length in space):
            there = self._blocks(x.new_ones((1, 1, *space))).squeeze(2) > 0
            mask = there.expand(x.shape[0], -1, -1).flatten(0, 1)
        attended = dot_product_attention(flat[0], flat[1], flat[2], scale=1.0, mask=mask, backend=self.backend)
        attended = attended.flatten(1, 2).unflatten(0, blocks.shape[:2])
        return self.split(self._from_blocks(attended, space))

    def output_from(self, attended: Tensor, x: Tensor) -> Tensor:
        out: Tensor = self.norm(attended.flatten(1, 2)).relu()
        pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[self.dims - 1]
        return pool(out, self.block, self.block, ceil_mode=True)

    def attention_map(self, x: Tensor, *, at: tuple[int, ...]) -> Tensor:
        """Weights on the image; all of them lie in the position's block."""
        space = tuple(self.checked(x).shape[2:])
        self.checked_position(x, at)
        inside = on_last(slice(p - p % self.block, p - p % self.block + self.block) for p in at)
        crop = x[inside]
        q, k = self.split(self.query(crop)), self.split(self.key(crop))
        row = attention_row(q, k, at=[p % self.block for p in at], normalization="softmax", scale=1.0)
        out = row.new_zeros((*row.shape[:2], *space))
        out[inside] = row
        return out

    def macs(self, space: tuple[int, ...]) -> int:
        places, c, o = self.block**self.dims, self.channels, self.channels_out
        blocks = math.prod(-(-length // self.block) for length in space)
        cost = blocks * places * o * (2 * c + 2 * places)
        if not isinstance(self.value, Pointwise):
            return cost + math.prod(space) * o * c * places
        cost += blocks * places * o * c
        if self.mixture is None:
            return cost
        mixtures, embedding = self.mixture.shape
        return cost + places * mixtures * (embedding + o * c)

    def checked(self, x: Tensor) -> Tensor:
        if super().checked(x).dim() != 2 + self.dims:
            raise ShapeError(
                f"LocalAttentionStem: made for maps of {self.dims} space axes, got {tuple(x.shape)}. "
                f"Build it with dims={x.dim() - 2}."
            )
        return x

    def extra_repr(self) -> str:
        return f"{self.channels}, {self.channels_out}, block={self.block}, heads={self.heads}, values={self.kind}"
