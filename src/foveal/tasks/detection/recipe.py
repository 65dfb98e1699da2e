"""Recipes of detection and instance segmentation; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from foveal.data.detection.options import DetectionData
from foveal.tasks.recipe import NamedModel, Training


@dataclass(frozen=True)
class DetectionModel(NamedModel):
    """A detector by name."""

    name: str = "mask_rcnn"
    """mask_rcnn, faster_rcnn or retinanet. Their options stand in docs/detection.md; --model.options.backbone resnet101
    is one."""


@dataclass(frozen=True)
class DetectionRecipe(Training):
    """One training run that finds objects."""

    task: Literal["detection"] = "detection"
    """What is learned."""
    data: DetectionData = field(default_factory=DetectionData)
    model: DetectionModel = field(default_factory=DetectionModel)
    best: str = "box_ap"
    """Metric whose best value marks the checkpoint that is kept as best."""
