"""Which images with boxes and masks, and what training does to them: plain values, as a recipe writes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DetectionData:
    """A data set in COCO's format: folders of images, and a JSON file with the objects of each."""

    name: str = "digit-scenes"
    """digit-scenes, coco, or folder for any other in COCO's format."""
    path: str | None = None
    """The folder that holds the images and annotations; digit-scenes needs none."""
    train_images: str | None = None
    """Folder of the training images under path; train2017 of coco, else train."""
    train_annotations: str | None = None
    """Their objects; annotations/instances_train2017.json of coco, else annotations/instances_train.json."""
    val_images: str | None = None
    """Folder of the validation images; val2017 of coco, else val."""
    val_annotations: str | None = None
    """Their objects; annotations/instances_val2017.json of coco, else annotations/instances_val.json."""
    labels: Literal["dense", "ids"] = "dense"
    """dense: classes are counted from 1; ids: a class is its category's id, with the holes between, as the weights of
    torchvision have it."""
    empty: bool = False
    """Whether training has the images without any object too."""
    aspect_ratio_grouping: bool = True
    """Whether the images of a step are all higher than wide, or none is, so that they are padded less; of no effect on
    the squares of crop."""
    flip: float = 0.5
    """Probability that a training image is mirrored."""
    crop: int | None = None
    """Side of a random square window that training takes, padded where the image is smaller; whole images where left
    out."""
    jitter: tuple[float, float] = (1.0, 1.0)
    """Range of the size at which an image is cropped, times that at which it just fits into the window."""
    verify: Literal["whole", "ends", "sizes"] | None = None
    """How image files are looked at before training: whole reads each to its end, ends its beginning and end, sizes
    only finds empty ones. Left out: whole up to 50,000 files, ends for more."""
    skip: str | None = None
    """A file that names one image a line, under path, to leave out."""
    workers: int | None = None
    """Processes that read images; as many as there are cores, at most 4, where left out."""
