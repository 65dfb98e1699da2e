"""Absolute positions without parameters: sinusoids of the row and of the column, added to a map.

The frequencies are those of Vaswani et al., Attention Is All You Need (2017), section 3.5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class AddSinusoids(nn.Module):
    """x plus the sinusoids of its rows on the first half of the channels and of its columns on the others.

    ``(batch, channels, rows, columns)`` to the same shape, of any size; nothing of them is kept between calls.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[1] - x.shape[1] // 2, x.shape[1] // 2
        along_rows = sinusoids(x.shape[2], rows, x.device)[:, :, None].expand(-1, -1, x.shape[3])
        along_columns = sinusoids(x.shape[3], columns, x.device)[:, None].expand(-1, x.shape[2], -1)
        return x + torch.cat([along_rows, along_columns]).to(x.dtype)


def sinusoids(length: int, channels: int, device: torch.device) -> Tensor:
    """``(channels, length)`` in float32: sines, then cosines, of wavelengths from 2 pi to 20000 pi."""
    half = channels - channels // 2
    frequencies = torch.exp(torch.arange(half, device=device) * (-math.log(10_000) / max(half, 1)))
    angles = frequencies[:, None] * torch.arange(length, device=device)
    return torch.cat([angles.sin(), angles.cos()[: channels - half]])
