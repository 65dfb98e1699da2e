"""What Faster and Mask R-CNN do with each of their proposals, at any width."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from foveal.models.detection.options import check_sides, check_width

BOX_CHANNELS, MASK_CHANNELS = 1024, 256
BOX_SIDE = 7  # positions of a pooled proposal along an axis
MASK_LAYERS = 4
RATIOS = (0.5, 1.0, 2.0)


def box_parts(channels: int, num_classes: int, width: int) -> dict[str, nn.Module]:
    """Two linear layers of a width, then classes and boxes."""
    check_width("box_channels", width)
    head = TwoMLPHead(channels * BOX_SIDE**2, width)
    return {"box_head": head, "box_predictor": FastRCNNPredictor(width, num_classes)}


def mask_parts(channels: int, num_classes: int, width: int) -> dict[str, nn.Module]:
    """Four 3x3 convolutions of a width, one that doubles the size, then a mask for each class."""
    check_width("mask_channels", width)
    head = MaskRCNNHeads(channels, (width,) * MASK_LAYERS, 1)
    return {"mask_head": head, "mask_predictor": MaskRCNNPredictor(width, width, num_classes)}


def anchor_parts(sizes: Any) -> dict[str, nn.Module]:
    """Anchors of three shapes and one size at each level; torchvision's where ``sizes`` is None."""
    if sizes is None:
        return {}
    check_sides(sizes)
    return {"rpn_anchor_generator": AnchorGenerator(tuple((side,) for side in sizes), (RATIOS,) * len(sizes))}
