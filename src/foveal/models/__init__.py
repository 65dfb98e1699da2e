"""Backbones of the papers and the one table of where each mechanism goes; importing this registers them in timm.

Networks that are no image classifiers are not timm's: they are functions of this module, loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from foveal.models import augmented as _augmented  # noqa: F401  registers its networks
from foveal.models import eamlp as _eamlp  # noqa: F401  registers its networks
from foveal.models import efficient as _efficient  # noqa: F401  registers its networks
from foveal.models import explicit as _explicit  # noqa: F401  registers its networks
from foveal.models import gates as _gates  # noqa: F401  registers its networks
from foveal.models import local as _local  # noqa: F401  registers its networks
from foveal.models import residual as _residual  # noqa: F401  registers its backbones
from foveal.models.configuration import Configuration
from foveal.models.hub import HubModel
from foveal.models.mechanisms import MECHANISMS, Mechanism, with_attention
from foveal.models.weights import load, save

if TYPE_CHECKING:
    from foveal.models.detection import faster_rcnn, mask_rcnn, retinanet
    from foveal.models.gan import eagan, resnet_gan, sagan
    from foveal.models.points import eat, npct, part_segmenter, pct, spct
    from foveal.models.segmentation import eanet
    from foveal.models.stereo import psmnet

_ROOMS = {
    "detection": ("faster_rcnn", "mask_rcnn", "retinanet"),
    "gan": ("eagan", "resnet_gan", "sagan"),
    "points": ("eat", "npct", "part_segmenter", "pct", "spct"),
    "segmentation": ("eanet",),
    "stereo": ("psmnet",),
}
NETWORKS = tuple(name for names in _ROOMS.values() for name in names)
"""Functions that make what is no image classifier."""

__all__ = [
    "MECHANISMS",
    "NETWORKS",
    "Configuration",
    "HubModel",
    "Mechanism",
    "eagan",
    "eanet",
    "eat",
    "faster_rcnn",
    "load",
    "mask_rcnn",
    "npct",
    "part_segmenter",
    "pct",
    "psmnet",
    "resnet_gan",
    "retinanet",
    "sagan",
    "save",
    "spct",
    "with_attention",
]


def __getattr__(name: str) -> Any:
    for room, names in _ROOMS.items():
        if name == room or name in names:
            module = import_module(f"foveal.models.{room}")
            return module if name == room else getattr(module, name)
    raise AttributeError(f"module 'foveal.models' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
