"""Which labelled images, and what training does to them: plain values, as a recipe writes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

DEFAULT_NAME = "digit-scenes-voc"


@dataclass(frozen=True)
class SegmentationAugmentation:
    """What training does to an image and its labels. Validation takes both as they are."""

    crop: tuple[int, int] = (513, 513)
    """Rows and columns of what is cut out of the scaled image; what it lacks is the mean colour, and ignored."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Least and largest factor on both sides of the image."""
    scale_step: float = 0.1
    """Between the factors that are drawn, from the least one on; 0 draws any number."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    color_jitter: float = 0.0
    """Largest relative change of brightness, contrast and saturation."""
    blur: float = 0.0
    """Probability of a Gaussian blur of 0.15 to 1.15 pixels."""


@dataclass(frozen=True)
class SegmentationData:
    """A data set by name and where it lies."""

    name: str = DEFAULT_NAME
    """digit-scenes-voc, voc, ade20k, cityscapes, or folder for images/ and labels/ with classes.txt."""
    path: str | None = None
    """Where the files lie; data that foveal makes itself need none."""
    train: str | None = None
    """List or folder of what is trained on, as the data set calls it (voc: train, train_aug, trainval); its own where
    left out."""
    val: str | None = None
    """The same of what is measured on."""
    augmentation: SegmentationAugmentation = field(default_factory=SegmentationAugmentation)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Of red, green and blue in 0 to 1; taken from the image."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """By which the rest is divided."""
    verify: Literal["whole", "headers", "sizes"] = "headers"
    """How files are looked at before training: whole reads every pixel and label, headers compares the sizes of each
    pair, sizes only finds empty files."""
    skip: str | None = None
    """A file that names one image a line, under path, to leave out."""
    workers: int | None = None
    """Processes that read images; as many as there are cores, at most 4, where left out."""
