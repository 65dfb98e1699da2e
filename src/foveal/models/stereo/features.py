"""Features of one image for PSMNet: a residual network at a quarter of the size, and pools of four windows beside it.

Paper: Chang and Chen, Pyramid Stereo Matching Network (2018), sections 3.1 and 3.2. The layout, the names of the
parameters and the blocks without a ReLU after the addition are those of the authors' code. Departure: on maps smaller
than a pool's window, the window is the map, so that images of less than 256 pixels run.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POOLS = (64, 32, 16, 8)


def conv_norm(
    channels: int, out: int, kernel_size: int, *, stride: int = 1, padding: int = 0, dilation: int = 1
) -> nn.Sequential:
    """A convolution without bias, and its norm."""
    padding = dilation if dilation > 1 else padding
    conv = nn.Conv2d(channels, out, kernel_size, stride=stride, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out))


class Block(nn.Module):
    """x + BN(conv(ReLU(BN(conv(x))))), without a ReLU after the addition."""

    def __init__(self, channels: int, out: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        first = conv_norm(channels, out, 3, stride=stride, padding=1, dilation=dilation)
        self.conv1 = nn.Sequential(first, nn.ReLU(inplace=True))
        self.conv2 = conv_norm(out, out, 3, padding=1, dilation=dilation)
        same = stride == 1 and channels == out
        self.downsample = None if same else conv_norm(channels, out, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.conv1(x))
        return out + (x if self.downsample is None else self.downsample(x))


class WindowPool(nn.AvgPool2d):
    """Means of windows of a size, or of the whole axis where that is shorter."""

    def forward(self, input: Tensor) -> Tensor:
        window = [min(int(self.kernel_size), length) for length in input.shape[2:]]  # type: ignore[arg-type]
        return F.avg_pool2d(input, window, window)


class Features(nn.Module):
    """``(batch, in_chans, rows, columns)`` to ``(batch, width, rows / 4, columns / 4)``.

    Args:
        in_chans: channels of the image.
        width: channels of the result; those before it have one, two or four times as many.
        align_corners: how the pools' means become maps again.
    """

    def __init__(self, in_chans: int = 3, width: int = 32, *, align_corners: bool = True) -> None:
        super().__init__()
        self.align_corners = align_corners
        first = conv_norm(in_chans, width, 3, stride=2, padding=1)
        convs = (first, *(conv_norm(width, width, 3, padding=1) for _ in "12"))
        self.firstconv = nn.Sequential(*(part for conv in convs for part in (conv, nn.ReLU(inplace=True))))
        self.layer1 = _blocks(width, width, 3)
        self.layer2 = _blocks(width, 2 * width, 16, stride=2)
        self.layer3 = _blocks(2 * width, 4 * width, 3)
        self.layer4 = _blocks(4 * width, 4 * width, 3, dilation=2)
        self.branch1, self.branch2, self.branch3, self.branch4 = (_branch(width, window) for window in POOLS)
        joined = conv_norm((2 + 4 + len(POOLS)) * width, 4 * width, 3, padding=1)
        self.lastconv = nn.Sequential(joined, nn.ReLU(inplace=True), nn.Conv2d(4 * width, width, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        raw = self.layer2(self.layer1(self.firstconv(x)))
        deep = self.layer4(self.layer3(raw))
        branches = (self.branch4, self.branch3, self.branch2, self.branch1)
        pooled = [
            F.interpolate(branch(deep), size=deep.shape[2:], mode="bilinear", align_corners=self.align_corners)
            for branch in branches
        ]
        out: Tensor = self.lastconv(torch.cat([raw, deep, *pooled], 1))
        return out


def _blocks(channels: int, out: int, count: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    first = Block(channels, out, stride=stride, dilation=dilation)
    return nn.Sequential(first, *(Block(out, out, dilation=dilation) for _ in range(count - 1)))


def _branch(width: int, window: int) -> nn.Sequential:
    return nn.Sequential(WindowPool(window), conv_norm(4 * width, width, 1), nn.ReLU(inplace=True))
