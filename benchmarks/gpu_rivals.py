"""Local attention of other libraries on maps ``(batch, heads, depth, rows, columns)``, window masked at the border."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def flex(side: int, window: int, device: torch.device) -> Attend:
    """torch's flex_attention, compiled on a GPU; positions are tokens, the window is a mask of blocks."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    half = window // 2

    def inside(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return ((key // side - query // side).abs() <= half) & ((key % side - query % side).abs() <= half)

    # Compiled, so that the n x n mask is never stored.
    mask = create_block_mask(inside, None, None, side**2, side**2, device=str(device), _compile=device.type == "cuda")
    attend = torch.compile(flex_attention) if device.type == "cuda" else flex_attention

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out: Tensor = attend(*(x.flatten(3).mT for x in (q, k, v)), block_mask=mask, scale=1.0)
        return out.mT.unflatten(3, (side, side))

    return run


def natten(window: int) -> Attend:
    """NATTEN's neighbourhood attention; its windows are shifted inwards at the border: as much work, another result."""
    from natten import na2d

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out: Tensor = na2d(*(x.permute(0, 3, 4, 1, 2) for x in (q, k, v)), kernel_size=window, scale=1.0)
        return out.permute(0, 3, 4, 1, 2)

    return run
