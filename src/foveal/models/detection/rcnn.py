"""Faster and Mask R-CNN on a feature pyramid, with attention in the backbone and after the levels of the pyramid.

Papers: He et al., Mask R-CNN (2017); attention as in Shen et al., Efficient Attention (2018), the detection tables.
Departures: torchvision's detectors, but they know their strides from the start; ``sites`` tells those of the attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchvision.models.detection import FasterRCNN, MaskRCNN

from foveal.models.detection.features import NAMES, taken
from foveal.models.detection.heads import BOX_CHANNELS, MASK_CHANNELS, anchor_parts, box_parts, mask_parts
from foveal.models.detection.options import check_classes, check_options
from foveal.models.detection.pooling import know_strides_
from foveal.models.detection.transform import Transform


def faster_rcnn(
    backbone: str = "resnet50",
    *,
    num_classes: int = 91,
    box_channels: int = BOX_CHANNELS,
    anchor_sizes: Sequence[int] | None = None,
    **options: Any,
) -> FasterRCNN:
    """Faster R-CNN: boxes and classes of a list of images of any sizes; in training losses, from targets too.

    The levels of its pyramid are P2 to P6, at strides 4 to 64.

    Args:
        backbone: of torchvision's residual networks, or a residual network of timm, foveal's included.
        num_classes: the background, class 0, is one of them.
        box_channels: width of the two linear layers that see a proposal.
        anchor_sizes: side of the anchors at each level, in pixels of the resized image; 32 to 512 where None.
        options: those of ``Features``; the others go to torchvision's ``FasterRCNN``, ``min_size`` say.

    Raises:
        OptionError: a name or a choice is unknown.
        DataError: the file of weights does not fit.
    """
    check_classes("faster_rcnn", num_classes)
    features = taken(options)
    check_options(faster_rcnn, FasterRCNN, options, NAMES)
    parts = anchor_parts(anchor_sizes) | box_parts(features.pyramid_channels, num_classes, box_channels)
    model = FasterRCNN(features.make(backbone, last="pooled"), **parts, **options)
    know_strides_(model)
    features.attend_(model.backbone)
    return model


def mask_rcnn(
    backbone: str = "resnet50",
    *,
    num_classes: int = 91,
    box_channels: int = BOX_CHANNELS,
    mask_channels: int = MASK_CHANNELS,
    anchor_sizes: Sequence[int] | None = None,
    **options: Any,
) -> MaskRCNN:
    """Mask R-CNN: what ``faster_rcnn`` gives, and a mask for each box; targets have masks too.

    Args:
        backbone: as there; the papers' are ``resnet50``, ``resnet101`` and ``resnext101_32x8d``.
        num_classes: as there.
        box_channels: as there.
        mask_channels: width of the convolutions that make a mask.
        anchor_sizes: as there.
        options: those of ``Features``; the others go to torchvision's ``MaskRCNN``.

    Raises:
        OptionError: a name or a choice is unknown.
        DataError: the file of weights does not fit.
    """
    check_classes("mask_rcnn", num_classes)
    features = taken(options)
    check_options(mask_rcnn, MaskRCNN, options, NAMES)
    parts = anchor_parts(anchor_sizes) | box_parts(features.pyramid_channels, num_classes, box_channels)
    parts |= mask_parts(features.pyramid_channels, num_classes, mask_channels)
    model = MaskRCNN(features.make(backbone, last="pooled"), **parts, **options)
    model.transform = Transform.of(model.transform)
    know_strides_(model)
    features.attend_(model.backbone)
    return model
