"""Which clouds, and what training does to them: plain values, as a recipe writes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class PointAugmentation:
    """What training does to a cloud, in this order. Validation does nothing of it."""

    rotation: Literal["none", "vertical", "any"] = "none"
    """Turn by a random angle about the vertical (second) axis, or to any side."""
    jitter: float = 0.0
    """Deviation of the noise on every coordinate, cut at three of them."""
    dropout: float = 0.875
    """Greatest share of points put where the first one is; how large it is differs from cloud to cloud."""
    scale: tuple[float, float] = (2 / 3, 3 / 2)
    """Range of a factor for each axis."""
    shift: float = 0.2
    """Greatest shift along each axis."""
    shuffle: bool = True
    """Whether points come in a random order."""


@dataclass(frozen=True)
class PointOptions:
    """A set of clouds by name and where it lies."""

    name: str = "solids"
    """solids and solid-parts are made here; modelnet40 and shapenet-part, or clouds and cloud-parts for sets of your
    own in the layouts of these two."""
    path: str | None = None
    """Where the files lie; what is made here needs none."""
    points: int = 1024
    """Points of a cloud. Of more, the subset is taken; of fewer, some are repeated."""
    subset: Literal["first", "random"] = "first"
    """Which points training takes of more; validation takes the first."""
    normals: bool = False
    """Read normals too: six channels instead of three."""
    unit_sphere: bool | None = None
    """Put each cloud's mean to the origin and its farthest point to distance 1. Left out: where the files are not
    stored like that."""
    held_out: Literal["test", "val"] = "test"
    """What is measured on where there are three parts: test trains on the two others, val leaves test alone."""
    augmentation: PointAugmentation = field(default_factory=PointAugmentation)
    verify: Literal["whole", "sizes"] | None = None
    """How files are looked at before training: whole reads every point, sizes only finds what is missing or empty.
    Left out: whole for HDF5 up to 2 GiB, else sizes."""
    skip: str | None = None
    """A file that names one cloud a line to leave out, as errors name them."""
    workers: int | None = None
    """Processes that read clouds; as many as there are cores, at most 4, where reading is work, else none."""
