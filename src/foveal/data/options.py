"""Which images, and what training does to them: plain values, as a recipe writes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Interpolation = Literal["nearest", "bilinear", "bicubic"]


@dataclass(frozen=True)
class Augmentation:
    """What training does to an image. Validation resizes and takes the middle."""

    crop: Literal["own", "resized", "padded", "none"] = "own"
    """own: crop and flip as the data set is made for; resized: a random part at the wanted size; padded: a random
    window of the padded image."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Share of the image's area that a resized crop takes."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of a resized crop."""
    padding: int = 4
    """Pixels on every side of a padded crop."""
    flip: float = 0.5
    """Probability of a horizontal flip; as scale, ratio and padding it needs a crop that is not own."""
    color_jitter: float = 0.0
    """Largest relative change of brightness, contrast and saturation."""
    policy: str | None = None
    """A policy in timm's words, rand-m9-mstd0.5-inc1 or original, say."""
    erasing: float = 0.0
    """Probability that a random rectangle is erased."""
    erasing_mode: Literal["const", "rand", "pixel"] = "pixel"
    """What an erased rectangle holds: zeros, one random colour, or noise."""
    mixup: float = 0.0
    """Alpha of the Beta distribution that blends two images; 0 blends none."""
    cutmix: float = 0.0
    """Alpha of the Beta distribution of a pasted rectangle's area; 0 pastes none."""
    switch: float = 0.5
    """Probability of cutmix where both are given."""


@dataclass(frozen=True)
class DataOptions:
    """A data set by name and where it lies."""

    name: str = "digits"
    """A name that `foveal.data.NAMES` holds, or folder for any folder with one folder of images a class."""
    path: str | None = None
    """Where the files lie; data that ships with foveal needs none."""
    size: int | None = None
    """Height and width of the images in pixels; the data's own where left out."""
    crop_share: float | None = None
    """Share of the resized image's side that validation keeps; the data's own where left out."""
    interpolation: Interpolation = "bilinear"
    """How images are resized."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    verify: Literal["whole", "ends", "sizes"] | None = None
    """How image files are looked at before training: whole reads each to its end, ends its beginning and end, sizes
    only finds empty ones. Left out: whole up to 50,000 files or 5 GB of shards, ends for more."""
    skip: str | None = None
    """A file that names one image a line, under path, to leave out."""
    workers: int | None = None
    """Processes that read images; as many as there are cores, at most 4, where reading is work, else none."""
