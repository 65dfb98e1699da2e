"""What an R-CNN cuts out of its maps for a proposal, at the strides that the maps have."""

from __future__ import annotations

from math import log2
from typing import Any

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from foveal.models.detection.pyramid import blank


def know_strides_(model: FasterRCNN) -> None:
    """Tell the poolers the strides of the levels.

    Torchvision's guess them from the first images that a model sees, without what these are padded by, and keep the
    guess: an image of 40 rows, padded to 64, makes all strides half of what they are for as long as the model lives.
    """
    image = blank(model)
    maps = _maps(model.backbone, image)
    for pool in model.modules():
        if isinstance(pool, MultiScaleRoIAlign):
            own: Any = pool
            own.scales = [maps[name].shape[-2] / image.shape[-2] for name in own.featmap_names if name in maps]
            least, most = (round(-log2(own.scales[place])) for place in (0, -1))
            own.map_levels = initLevelMapper(least, most, own.canonical_scale, own.canonical_level)


@torch.no_grad()
def _maps(backbone: nn.Module, image: torch.Tensor) -> Any:
    """The levels of an image, without a trace of it in the norms."""
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    try:
        return backbone(image)
    finally:
        for module, training in modes:
            module.training = training
