"""Recipes that learn disparities of pairs of images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from foveal.data.stereo.options import StereoData
from foveal.tasks.recipe import NamedModel, Training


@dataclass(frozen=True)
class StereoRecipe(Training):
    """One training run that finds how far things are."""

    task: Literal["stereo"] = "stereo"
    """What is learned."""
    data: StereoData = field(default_factory=StereoData)
    model: NamedModel = field(default_factory=lambda: NamedModel("psmnet"))
    loss_weights: tuple[float, ...] = (0.5, 0.7, 1.0)
    """Of the network's classifiers, the last one last; a network of fewer takes the last ones."""
    best: str = "epe"
    """Metric whose best value marks the checkpoint that is kept as best."""
