"""Detectors of the papers: torchvision's, on backbones of torchvision or timm, with attention at named sites."""

from foveal.models.detection.build import DETECTORS, MASKS, detector
from foveal.models.detection.rcnn import faster_rcnn, mask_rcnn
from foveal.models.detection.retinanet import retinanet
from foveal.models.detection.sites import SITES
from foveal.models.detection.transform import masks_in_boxes, pasted
from foveal.models.detection.trunk import Trunk

__all__ = [
    "DETECTORS",
    "MASKS",
    "SITES",
    "Trunk",
    "detector",
    "faster_rcnn",
    "mask_rcnn",
    "masks_in_boxes",
    "pasted",
    "retinanet",
]
