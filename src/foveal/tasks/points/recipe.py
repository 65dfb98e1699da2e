"""Everything that decides what a training on clouds ends with, as plain values that a YAML file holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from foveal.data.points.options import PointOptions
from foveal.tasks.recipe import NamedModel, Training

MODELS = ("spct", "npct", "pct", "eat")
SEGMENTER = "part_segmenter"


@dataclass(frozen=True)
class Voting:
    """Answers averaged over several copies of a cloud, each scaled at random; measured beside the plain answers."""

    votes: int = 0
    """Copies, the first of them as it is; 0 does not vote. Validation takes that many times as long."""
    scale: tuple[float, float] = (2 / 3, 3 / 2)
    """Range of a factor for each axis."""


@dataclass(frozen=True)
class PointsRecipe(Training):
    """One training run on clouds of points."""

    task: Literal["points"] = "points"
    """What is learned: the class of a cloud, or where the data have parts the part of each point."""
    data: PointOptions = field(default_factory=PointOptions)
    model: NamedModel = field(default_factory=lambda: NamedModel("spct"))
    """spct, npct, pct or eat for classes, part_segmenter for parts."""
    batch_size: int = 32
    """Clouds of an optimiser's step, over all processes and all accumulated parts."""
    smoothing: float = 0.0
    """Label smoothing."""
    voting: Voting = field(default_factory=Voting)
    channels_last: bool = False
    """Without effect: clouds have one axis."""
    best: str = "accuracy"
    """Metric whose best value marks the checkpoint that is kept as best."""
