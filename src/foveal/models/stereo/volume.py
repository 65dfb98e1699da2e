"""The cost volume of PSMNet, and a 3x3x3 convolution of it that never stores it.

Paper: Chang and Chen, Pyramid Stereo Matching Network (2018), section 3.3. Departures: none.
Symbols: d disparity and D their number, s = w - d the column of the right map, m = kw - kd the slide of a kernel tap.

The volume repeats 2-D maps: its left half is the left map wherever s >= 0, its right half the right map at column s. A
tap (kd, kh, kw) at (d, w) reads the right map at s + m, so a convolution of that half is a 2-D convolution with 3 x 5
taps, laid out along s; that of the left half sums the taps with m >= -s, of which there are five sets. What the zeros
around the volume take away is three 2-D convolutions more: of the planes before the first and behind the last
disparity, and of the column behind the last.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from foveal.errors import ShapeError
from foveal.layers.base import check_sizes

# Slides of the five sets of taps, and on which diagonal s each of the first four stands; the last is for s >= 2.
_SETS = (2, 1, 0, -1, -2)
_DIAGONALS = (-2, -1, 0, 1)


def cost_volume(left: Tensor, right: Tensor, disparities: int) -> Tensor:
    """The volume as it is defined, one disparity after the other; the reference of ``volume_conv``.

    Args:
        left: features ``(batch, channels, rows, columns)``.
        right: those of the other image.
        disparities: how many, from 0 on, in columns of the maps.

    Returns:
        ``(batch, 2 channels, disparities, rows, columns)``: the left map and the right one shifted by d, zero where the
        shifted map has no column.

    Raises:
        ShapeError: the maps have other shapes.
    """
    _check("cost_volume", left, right, disparities)
    channels, columns = left.shape[1], left.shape[3]
    volume = left.new_zeros(left.shape[0], 2 * channels, disparities, *left.shape[2:])
    for d in range(min(disparities, columns)):
        volume[:, :channels, d, :, d:] = left[..., d:]
        volume[:, channels:, d, :, d:] = right[..., : columns - d]
    return volume


def volume_conv(left: Tensor, right: Tensor, weight: Tensor, disparities: int) -> Tensor:
    """``conv3d(cost_volume(left, right, disparities), weight, padding=1)``, exact up to rounding.

    It costs 98 C multiply-adds for each pixel and output channel instead of 54 C D, and stores its result alone.

    Args:
        left: features ``(batch, C, rows, columns)``.
        right: those of the other image.
        weight: ``(out, 2 C, 3, 3, 3)``.
        disparities: D.

    Returns:
        ``(batch, out, D, rows, columns)``.

    Raises:
        ShapeError: the maps have other shapes, or the weight does not fit them.
    """
    _check("volume_conv", left, right, disparities)
    if weight.dim() != 5 or tuple(weight.shape[1:]) != (2 * left.shape[1], 3, 3, 3):
        raise ShapeError(
            f"volume_conv: the weight must be (out, {2 * left.shape[1]}, 3, 3, 3) for maps of {left.shape[1]} "
            f"channels, got {tuple(weight.shape)}. Give one with 3 taps an axis and twice the channels."
        )
    of_left, of_right = weight.chunk(2, 1)
    at_least, exactly = _slides(weight)
    sets = (of_left * at_least[:, None, None, :, None, :]).sum(3).flatten(0, 1)
    beside = F.conv2d(left, sets, padding=1).unflatten(1, (5, -1))
    taps = (of_right * exactly[:, None, None, :, None, :]).sum((3, 5)).permute(1, 2, 3, 0)
    slid = F.conv2d(F.pad(right, (4, 2, 1, 1)), taps)
    first, last, edge = _outside(left, right, of_left, of_right, disparities)
    out: Tensor = _Slide.apply(beside[:, 4], beside[:, :4], slid, first, last, edge)
    return out


class VolumeConv(nn.Conv3d):
    """The first convolution behind a cost volume, ``(left, right, disparities)`` to its map; weights of a ``Conv3d``.

    Args:
        channels: of one image's features.
        out: channels of the result.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(2 * channels, out, 3, padding=1, bias=False)

    def forward(self, left: Tensor, right: Tensor, disparities: int) -> Tensor:  # type: ignore[override]
        return volume_conv(left, right, self.weight, disparities)


def _slides(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Which taps ``(kd, kw)`` belong to each of the five sets, and which have each of the slides -2 to 2."""
    tap = torch.arange(3, device=weight.device)
    slide = tap - tap[:, None]
    at_least = torch.stack([slide >= least for least in _SETS])
    exactly = torch.stack([slide == m for m in range(-2, 3)])
    return at_least.to(weight.dtype), exactly.to(weight.dtype)


def _outside(
    left: Tensor, right: Tensor, of_left: Tensor, of_right: Tensor, disparities: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What the slid maps add from planes -1 and D and from the column behind the last, where the volume is zero."""
    columns = left.shape[3]
    first = F.conv2d(left, of_left[:, :, 0], padding=1)
    first = first + F.conv2d(F.pad(right, (0, 2, 1, 1)), of_right[:, :, 0])
    behind = left * (torch.arange(columns, device=left.device) >= disparities)
    last = F.conv2d(behind, of_left[:, :, 2], padding=1)
    shifted = F.pad(right, (disparities + 1, 1, 1, 1))[..., : columns + 2]
    last = last + F.conv2d(shifted, of_right[:, :, 2])
    # Column w = W of the plane d is column W - d of the right map.
    side = F.pad(right, (disparities, 1))[..., columns + 1 :].flip(3)
    edge = F.conv2d(side, of_right[..., 2].transpose(2, 3), padding=1)
    return first, last, edge.transpose(2, 3)


class _Slide(torch.autograd.Function):
    """Lays maps along disparities: zero for s < -2, ``beside`` and ``slid`` elsewhere, less what is outside."""

    @staticmethod
    def forward(
        ctx: Any, flat: Tensor, sets: Tensor, slid: Tensor, first: Tensor, last: Tensor, edge: Tensor
    ) -> Tensor:
        (batch, out, rows, columns), disparities = flat.shape, edge.shape[2]
        shape = (batch, out, disparities, rows, columns)
        shown = max(columns - disparities + 1, 0)
        y = flat.unsqueeze(2).expand(shape).clone(memory_format=torch.contiguous_format)
        _sheared(y).add_(slid[..., 2:].unsqueeze(2))
        y[:, :, -1, :, columns - shown :] += slid[..., 2 : 2 + shown]
        y.masked_fill_(_unseen(y), 0)
        for number, s in enumerate(_DIAGONALS):
            line = y.diagonal(s, 2, 4)
            start = max(s, 0)
            if line.shape[3]:
                line.copy_(sets[:, number, ..., start : start + line.shape[3]] + slid[..., s + 2, None])
        y[:, :, 0] -= first
        y[:, :, -1] -= last
        y[..., -1] -= edge
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        batch, out, disparities, rows, columns = grad.shape
        shown = max(columns - disparities + 1, 0)
        seen = grad.masked_fill(_unseen(grad), 0).contiguous()
        flat = seen.sum(2)
        sets = grad.new_zeros(batch, 4, out, rows, columns)
        slid = grad.new_zeros(batch, out, rows, columns + 2)
        slid[..., 2:] = _sheared(seen).sum(2)
        slid[..., 2 : 2 + shown] += seen[:, :, -1, :, columns - shown :]
        for number, s in enumerate(_DIAGONALS):
            line = grad.diagonal(s, 2, 4)
            start = max(s, 0)
            within = slice(start, start + line.shape[3])
            sets[:, number, ..., within] = line
            if s < 0:
                slid[..., s + 2] = line.sum(3)
            else:
                flat[..., within] -= line
        return flat, sets, slid, -grad[:, :, 0], -grad[:, :, -1], -grad[..., -1]


def _sheared(y: Tensor) -> Tensor:
    """All planes of ``y`` but the last, by s = w - d instead of w, without a copy.

    Rows run over into the next, and the last of a plane into the next plane: into columns w < d, which hold nothing.
    """
    batch, out, disparities, rows, columns = y.shape
    a, b, plane, row, column = y.stride()
    return y.as_strided((batch, out, disparities - 1, rows, columns), (a, b, plane + 1, row, column))


def _unseen(y: Tensor) -> Tensor:
    """``(D, 1, W)``, True where the right map has no column: w < d."""
    d, w = (torch.arange(y.shape[axis], device=y.device) for axis in (2, 4))
    return (w < d[:, None])[:, None]


def _check(operation: str, left: Tensor, right: Tensor, disparities: int) -> None:
    check_sizes(operation, disparities=disparities)
    if left.dim() != 4 or left.shape != right.shape or 0 in left.shape[1:]:
        raise ShapeError(
            f"{operation}: both maps must be (batch, channels, rows, columns) of one shape, got {tuple(left.shape)} "
            f"and {tuple(right.shape)}. Crop or pad the images to one size."
        )
