"""Whether two sets of options name the same network, whether or not they say what stands by default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from inspect import signature
from typing import Any

from torchvision.models import detection

from foveal import models
from foveal.models.detection.features import Features
from foveal.models.segmentation import EANet
from foveal.models.stereo import PSMNet

# What has the options' defaults; of timm's models nothing is known.
_MAKERS: dict[str, tuple[Callable[..., Any], ...]] = {
    "retinanet": (detection.RetinaNet, models.retinanet, Features),
    "mask_rcnn": (detection.MaskRCNN, models.mask_rcnn, Features),
    "eanet": (EANet,),
    "psmnet": (PSMNet,),
    "resnet_gan": (models.resnet_gan,),
    "sagan": (models.resnet_gan,),
    "eagan": (models.resnet_gan,),
    "npct": (models.npct,),
    "spct": (models.spct,),
    "pct": (models.pct,),
    "eat": (models.eat,),
    "part_segmenter": (models.part_segmenter,),
}
# What a network starts from, and what of it learns or is left out in training.
_FREE = frozenset({"weights_backbone", "trainable_layers", "identity", "drop_rate", "drop_path_rate"})


def deciding(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that make another network than the model's name alone, with lists for all sequences."""
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    usual = _defaults(model)
    return {name: value for name, value in plain.items() if name not in _FREE and usual.get(name, plain) != value}


@cache
def _defaults(model: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for maker in _MAKERS.get(model, ()):
        found |= {name: each.default for name, each in signature(maker).parameters.items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
