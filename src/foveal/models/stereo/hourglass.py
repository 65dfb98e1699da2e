"""What PSMNet puts behind its cost volume: pairs of 3-D convolutions, hourglasses and classifiers.

Paper: Chang and Chen, Pyramid Stereo Matching Network (2018), section 3.4. Layout and names are those of the authors'
code. Departure: the first convolution never stores the cost volume, see ``volume``; its weights are the same.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from foveal.models.stereo.volume import VolumeConv


def conv_norm(channels: int, out: int, *, stride: int = 1) -> nn.Sequential:
    """A 3x3x3 convolution without bias, and its norm."""
    return nn.Sequential(nn.Conv3d(channels, out, 3, stride=stride, padding=1, bias=False), nn.BatchNorm3d(out))


class Entry(nn.Sequential):
    """Two convolutions with norm and ReLU behind the cost volume of two maps."""

    def __init__(self, width: int) -> None:
        first = nn.Sequential(VolumeConv(width, width), nn.BatchNorm3d(width))
        super().__init__(first, nn.ReLU(inplace=True), conv_norm(width, width), nn.ReLU(inplace=True))

    def forward(self, left: Tensor, right: Tensor, disparities: int) -> Tensor:  # type: ignore[override]
        first, *others = self.children()
        conv, norm = first.children()
        x: Tensor = norm(conv(left, right, disparities))
        for part in others:
            x = part(x)
        return x


def pair(width: int) -> nn.Sequential:
    """Two convolutions, a ReLU between them; the addition is the caller's, and no ReLU follows it."""
    return nn.Sequential(conv_norm(width, width), nn.ReLU(inplace=True), conv_norm(width, width))


def classifier(width: int) -> nn.Sequential:
    """To one score a disparity and pixel of the small map."""
    last = nn.Conv3d(width, 1, 3, padding=1, bias=False)
    return nn.Sequential(conv_norm(width, width), nn.ReLU(inplace=True), last)


class Hourglass(nn.Module):
    """Down to a quarter and up again; gives its result and what it had at half the size on either way."""

    def __init__(self, width: int) -> None:
        super().__init__()
        wide = 2 * width
        self.conv1 = nn.Sequential(conv_norm(width, wide, stride=2), nn.ReLU(inplace=True))
        self.conv2 = conv_norm(wide, wide)
        self.conv3 = nn.Sequential(conv_norm(wide, wide, stride=2), nn.ReLU(inplace=True))
        self.conv4 = nn.Sequential(conv_norm(wide, wide), nn.ReLU(inplace=True))
        self.conv5 = _up(wide, wide)
        self.conv6 = _up(wide, width)

    def forward(self, x: Tensor, down: Tensor | None, up: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """``down`` is added on the way up instead of the own one, ``up`` on the way down; both from hourglasses before.

        Returns:
            The result, and the maps at half the size on the way down and on the way up.
        """
        before = self.conv2(self.conv1(x))
        before = F.relu(before if up is None else before + up, inplace=True)
        out = self.conv5(self.conv4(self.conv3(before)))
        after = F.relu(out + (before if down is None else down), inplace=True)
        return self.conv6(after), before, after


def _up(channels: int, out: int) -> nn.Sequential:
    """Twice the size."""
    conv = nn.ConvTranspose3d(channels, out, 3, stride=2, padding=1, output_padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm3d(out))
