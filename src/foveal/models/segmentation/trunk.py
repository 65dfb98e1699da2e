"""Residual networks with few strides and a multi-grid in the last stage, as EANet stands on them.

The authors' have 50, 101 or 152 layers and an output stride of 8 or 16. Departures: 10, 18 and 34 layers of plain
blocks, other widths and a stem of one convolution, for small images; their multi-grid is that of as many blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from foveal.errors import OptionError
from foveal.functional.inputs import check_choice
from foveal.layers.base import check_sizes
from foveal.models.resnets import DEPTHS

Stem = Literal["deep", "torchvision", "small"]
Norm = Callable[[int], nn.Module]
MULTI_GRID = (1, 2, 4)
CHANNELS = (64, 128, 256, 512)
_DEPTHS = {10: (BasicBlock, (1, 1, 1, 1)), 18: (BasicBlock, (2, 2, 2, 2))}
_STRIDES = {"deep": (8, 16), "torchvision": (8, 16), "small": (4, 8)}


def trunk(
    depth: int, *, output_stride: int, stem: Stem, in_chans: int, norm: Norm, channels: Sequence[int] = CHANNELS
) -> ResNet:
    """timm's ``ResNet`` without its head; the first block of a dilated stage has the dilation of the stage before.

    Args:
        depth: 10, 18, 34, 50, 101 or 152.
        output_stride: 8 or 16; 4 or 8 with the small stem.
        stem: ``"deep"``, three 3x3 convolutions of 64, 64 and 128 channels, ``"torchvision"``, its 7x7 one, both
            with a pool after them, or ``"small"``, one 3x3 convolution of stride 2.
        in_chans: channels of the image.
        norm: makes the norm of a number of channels.
        channels: of the four stages; those of bottlenecks end with four times as many.
    """
    known = {**_DEPTHS, **{layers: DEPTHS[layers] for layers in (34, 50, 101, 152)}}
    if depth not in known:
        raise OptionError(f"eanet: depth must be one of {', '.join(map(str, known))}, got {depth!r}. Use 50, say.")
    check_choice("eanet", "stem", stem, tuple(_STRIDES))
    if output_stride not in _STRIDES[stem]:
        least, most = _STRIDES[stem]
        raise OptionError(
            f"eanet: output_stride must be {least} or {most} with the {stem} stem, got {output_stride!r}. Use {least}."
        )
    check_channels(channels)
    block, layers = known[depth]
    stems: dict[str, Any] = {"stem_type": "deep", "stem_width": 64} if stem == "deep" else {}
    # timm counts the strides of its own stem, of which the small one has half.
    own = 2 * output_stride if stem == "small" else output_stride
    sizes = {"num_classes": 0, "in_chans": in_chans, "output_stride": own, "channels": tuple(channels)}
    # timm passes device and type, which a caller's own function need not take.
    made = ResNet(block, layers, norm_layer=lambda count, **_: norm(count), zero_init_last=False, **sizes, **stems)
    if stem == "small":
        made.conv1 = nn.Conv2d(in_chans, made.conv1.out_channels, 3, stride=2, padding=1, bias=False)
        made.maxpool = nn.Identity()
    _dilate(made, 32 // own)
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            # The rule of the authors' code.
            nn.init.normal_(module.weight, std=math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels)))
    return made


def _dilate(made: ResNet, dilation: int) -> None:
    """The multi-grid of the last stage: its first block is timm's, the others have multiples of the dilation."""
    for block, grid in zip(list(made.layer4)[1:], MULTI_GRID[1:], strict=False):
        for conv in (block.conv1, block.conv2):
            if conv.kernel_size == (3, 3):
                conv.dilation = conv.padding = (dilation * grid,) * 2


def check_channels(channels: Sequence[int]) -> None:
    """Raise where these are not four counts of channels."""
    if len(channels) != 4:
        raise OptionError(f"eanet: channels must be four numbers, one a stage, got {tuple(channels)}. Use {CHANNELS}.")
    check_sizes("eanet", **{f"channels[{n}]": count for n, count in enumerate(channels)})
