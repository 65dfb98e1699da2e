"""Faster and Mask R-CNN on a feature pyramid, with attention in the backbone and after the levels of the pyramid.

Papers: He et al., Mask R-CNN (2017); attention as in Shen et al., Efficient Attention (2018), the detection tables.
Departures: none from torchvision's detectors; ``sites`` tells those of the attention.
"""

from __future__ import annotations

from typing import Any

from torchvision.models.detection import FasterRCNN, MaskRCNN

from foveal.models.detection.features import taken
from foveal.models.detection.options import check_classes, check_options


def faster_rcnn(backbone: str = "resnet50", *, num_classes: int = 91, **options: Any) -> FasterRCNN:
    """Faster R-CNN: boxes and classes of a list of images of any sizes; in training losses, from targets too.

    The levels of its pyramid are P2 to P6, at strides 4 to 64.

    Args:
        backbone: of torchvision's residual networks, or a residual network of timm, foveal's included.
        num_classes: the background, class 0, is one of them.
        options: those of ``Features``; the others go to torchvision's ``FasterRCNN``, ``min_size`` say.

    Raises:
        OptionError: a name or a choice is unknown.
        DataError: the file of weights does not fit.
    """
    check_classes("faster_rcnn", num_classes)
    features = taken(options)
    check_options("faster_rcnn", FasterRCNN, options)
    return FasterRCNN(features.make(backbone, last="pooled"), num_classes, **options)


def mask_rcnn(backbone: str = "resnet50", *, num_classes: int = 91, **options: Any) -> MaskRCNN:
    """Mask R-CNN: what ``faster_rcnn`` gives, and a mask for each box; targets have masks too.

    Args:
        backbone: as there; the papers' are ``resnet50``, ``resnet101`` and ``resnext101_32x8d``.
        num_classes: as there.
        options: those of ``Features``; the others go to torchvision's ``MaskRCNN``.

    Raises:
        OptionError: a name or a choice is unknown.
        DataError: the file of weights does not fit.
    """
    check_classes("mask_rcnn", num_classes)
    features = taken(options)
    check_options("mask_rcnn", MaskRCNN, options)
    return MaskRCNN(features.make(backbone, last="pooled"), num_classes, **options)
