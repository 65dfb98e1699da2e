"""A recipe of semantic segmentation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from foveal.data.segmentation.options import SegmentationData
from foveal.tasks.recipe import NamedModel, Training


@dataclass(frozen=True)
class SegmentationEvaluation:
    """How a trained network is asked, for validation and for new images."""

    scales: tuple[float, ...] = (1.0,)
    """Factors on both sides of the image; the scores of all are averaged."""
    flip: bool = False
    """Average with the scores of the mirrored image."""
    window: tuple[int, int] | None = None
    """Rows and columns of a window that slides over images larger than that; the whole image where left out."""
    stride: float = 2 / 3
    """Share of the window from one place to the next."""
    average: Literal["probabilities", "logits"] = "probabilities"
    """What is averaged: scores after or before the softmax."""


@dataclass(frozen=True)
class SegmentationRecipe(Training):
    """One training run that tells the class of every pixel."""

    task: Literal["segmentation"] = "segmentation"
    """What is learned."""
    data: SegmentationData = field(default_factory=SegmentationData)
    model: NamedModel = field(default_factory=lambda: NamedModel("eanet"))
    evaluation: SegmentationEvaluation = field(default_factory=SegmentationEvaluation)
    head_lr: float = 1.0
    """Factor on the rate of all that is not the backbone."""
    batch_size: int = 16
    """Images of an optimiser's step, over all processes and all accumulated parts."""
    best: str = "miou"
    """Metric whose best value marks the checkpoint that is kept as best."""
