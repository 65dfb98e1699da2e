"""RetinaNet with local attention in backbone, pyramid and heads, or with attention at the sites of all detectors.

Papers: Lin et al., Focal Loss for Dense Object Detection (2017); Ramachandran et al., Stand-Alone Self-Attention in
Vision Models (2019), table 2 and appendix A.3; Guo et al. (2021) for external attention after ``res4``.
Departures: torchvision's detector as it is, so the heads have no norms. The last 3x3 convolution of each head becomes
local attention of width 256 and a pointwise convolution to its outputs, our reading of "an extra pointwise convolution
at the end": the published counts fit that, and convolutions kept in the pyramid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead

from foveal.errors import OptionError
from foveal.graft import replace_
from foveal.graft.site import Site
from foveal.layers.local import LocalAttention
from foveal.models.detection.features import NAMES, taken
from foveal.models.detection.heads import RATIOS
from foveal.models.detection.options import check_classes, check_options, check_sides
from foveal.models.detection.pyramid import CHANNELS

SIDES = (32, 64, 128, 256, 512)
_PRIOR = 0.01


def retinanet(
    backbone: str = "resnet50",
    *,
    num_classes: int = 91,
    local_heads: bool = False,
    local_pyramid: bool = False,
    scales: int = 3,
    anchor_sizes: Sequence[int] = SIDES,
    **options: Any,
) -> RetinaNet:
    """RetinaNet: boxes and classes of a list of images of any sizes; in training losses, from targets too.

    The levels of its pyramid, ``fpn1`` to ``fpn5``, are P3 to P7, at strides 8 to 128.

    Args:
        backbone: of torchvision's residual networks, or a residual network of timm; ``foveal_local_resnet50`` and
            ``foveal_local_resnet50_attention_stem`` are the papers' of local attention.
        num_classes: class 0, the background, is one of them and is never a target.
        local_heads: local attention instead of the 3x3 convolutions of both heads, shared over the levels.
        local_pyramid: local attention instead of those of the pyramid.
        scales: anchors an octave, times three aspect ratios; 3 in the paper of RetinaNet, while the counts of the
            papers of attention fit 2.
        anchor_sizes: side of the smallest anchors at each level, in pixels of the resized image.
        options: those of ``Features``; the others go to torchvision's ``RetinaNet``, ``min_size`` say.

    Raises:
        OptionError: a name or a choice is unknown.
        DataError: the file of weights does not fit.
    """
    check_classes("retinanet", num_classes)
    if isinstance(scales, bool) or not isinstance(scales, int) or scales < 1:
        raise OptionError(f"retinanet: scales must be an integer of at least 1, got {scales!r}. Pass 3, say.")
    check_sides(anchor_sizes)
    features = taken(options)
    check_options(retinanet, RetinaNet, options, NAMES)
    body = features.make(backbone, last="strided", local=local_pyramid)
    head = RetinaNetHead(features.pyramid_channels, scales * len(RATIOS), num_classes)
    if local_heads:
        attending_heads_(head, features.pyramid_channels)
    model = RetinaNet(body, num_classes, anchor_generator=anchors(scales, anchor_sizes), head=head, **options)
    features.attend_(model.backbone)
    return model


def anchors(scales: int, sides: Sequence[int] = SIDES) -> AnchorGenerator:
    """Three shapes at each of so many sizes between a level's side and the next."""
    sizes = tuple(tuple(int(side * 2 ** (step / scales)) for step in range(scales)) for side in sides)
    return AnchorGenerator(sizes, (RATIOS,) * len(sizes))


def attending_heads_(head: RetinaNetHead, width: int = CHANNELS) -> None:
    """Local attention of one width instead of every 3x3 convolution, with values that start from N(0, 0.01)."""

    def attention(site: Site) -> nn.Module:
        layer = LocalAttention(site.channels_in, width, kernel_size=7, heads=8)
        nn.init.normal_(layer.value.weight, std=0.01)
        if site.name.endswith(".0"):
            return layer
        return nn.Sequential(layer, _pointwise(site, width))

    where = ["*.conv.*.0", "classification_head.cls_logits", "regression_head.bbox_reg"]
    replace_(head, where, attention, example=[next(head.parameters()).new_zeros(1, width, 8, 8)])


def _pointwise(site: Site, width: int) -> nn.Module:
    """The convolution that mixes the heads of attention into outputs; classes start as rare as torchvision's do."""
    mix = nn.Conv2d(width, site.channels_out, 1)
    nn.init.normal_(mix.weight, std=0.01)
    start = -math.log((1 - _PRIOR) / _PRIOR) if "cls_logits" in site.name else 0.0
    nn.init.constant_(cast(nn.Parameter, mix.bias), start)
    return mix
