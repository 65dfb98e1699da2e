"""The average poolings that follow attention where a convolution had a stride; both give ceil(size / stride)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from foveal.functional.sizes import open_sizes

_POOL = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


def pool_blocks(x: Tensor, stride: int) -> Tensor:
    """Averages of aligned blocks of ``stride`` positions an axis; an incomplete last block averages what it has."""
    if stride == 1:
        return x
    space = x.shape[2:]
    # Of the form that strided convolutions have, so that open sizes are seen to be equal.
    missing = [((length - 1) // stride + 1) * stride - length for length in space]
    open_ended = open_sizes(space)
    if open_ended or any(missing):
        x = F.pad(x, [side for pad in reversed(missing) for side in (0, pad)])
    pool = _POOL[len(space) - 1]
    x = pool(x, stride)
    if open_ended:
        there = F.pad(x.new_ones((1, 1, *space)), [side for pad in reversed(missing) for side in (0, pad)])
        return x / pool(there, stride)
    for axis, pad in enumerate(missing):
        if pad:
            factor = x.new_ones(x.shape[2 + axis])
            factor[-1] = stride / (stride - pad)
            x = x * factor.reshape([-1 if a == axis else 1 for a in range(len(space))])
    return x


def pool_overlapping(x: Tensor, stride: int, outside: tuple[int, int] = (1, 1)) -> Tensor:
    """Averages over 3 positions an axis around every stride-th one, zeros outside the map counted in.

    ``outside`` says how many rows of zeros lie before and behind on the first axis; none where other rows of a larger
    map are part of ``x``.
    """
    if stride == 1:
        return x
    axes = x.dim() - 2
    # Padded first, because torch refuses maps smaller than the window even where the padding makes up for it.
    return _POOL[axes - 1](F.pad(x, [*[1, 1] * (axes - 1), *outside]), 3, stride)
