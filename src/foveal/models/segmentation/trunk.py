"""Residual networks of output stride 8 or 16 with a multi-grid in the last stage, as EANet stands on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from timm.models.resnet import ResNet
from torch import nn

from foveal.errors import OptionError
from foveal.functional.inputs import check_choice
from foveal.models.resnets import DEPTHS

Stem = Literal["deep", "torchvision"]
Norm = Callable[[int], nn.Module]
MULTI_GRID = (1, 2, 4)


def trunk(depth: int, *, output_stride: int, stem: Stem, in_chans: int, norm: Norm) -> ResNet:
    """timm's ``ResNet`` without its head; the first block of a dilated stage has the dilation of the stage before.

    Args:
        depth: 50, 101 or 152.
        output_stride: 8 or 16.
        stem: ``"deep"``, three 3x3 convolutions of 64, 64 and 128 channels, or torchvision's 7x7 one.
        in_chans: channels of the image.
        norm: makes the norm of a number of channels.
    """
    if depth not in (50, 101, 152):
        raise OptionError(f"eanet: depth must be 50, 101 or 152, got {depth!r}. Use 50, say.")
    if output_stride not in (8, 16):
        raise OptionError(f"eanet: output_stride must be 8 or 16, got {output_stride!r}. Use 8, as the paper does.")
    check_choice("eanet", "stem", stem, ("deep", "torchvision"))
    block, layers = DEPTHS[depth]
    stems: dict[str, Any] = {"stem_type": "deep", "stem_width": 64} if stem == "deep" else {}
    sizes = {"num_classes": 0, "in_chans": in_chans, "output_stride": output_stride}
    # timm passes device and type, which a caller's own function need not take.
    made = ResNet(block, layers, norm_layer=lambda count, **_: norm(count), zero_init_last=False, **sizes, **stems)
    for blocks, grid in zip(list(made.layer4)[1:], MULTI_GRID[1:], strict=True):
        conv = blocks.conv2
        conv.dilation = conv.padding = (32 // output_stride * grid,) * 2
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            # The rule of the authors' code.
            nn.init.normal_(module.weight, std=math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels)))
    return made
