"""The scenes of digits in the layout of Pascal VOC: labels with its palette, and a border of 255 around every digit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from foveal.data.detection.scenes import COUNTS, Scene, scene
from foveal.data.segmentation.classes import voc_colours
from foveal.data.segmentation.labels import IGNORE, Labels

Mask = npt.NDArray[np.bool_]

VERSION = 1
QUALITY = 95


def write(folder: Path) -> None:
    """JPEGImages, SegmentationClass and the lists train, val and trainval."""
    names = {side: [f"{side}_{number:04}" for number in range(count)] for side, count in COUNTS.items()}
    for inner in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / inner).mkdir(parents=True)
    for side, own in names.items():
        for number, name in enumerate(own):
            _write_scene(folder, name, scene(number, side))
    lists = {str(side): own for side, own in names.items()}
    lists["trainval"] = [name for own in names.values() for name in own]
    for title, own in lists.items():
        (folder / "ImageSets" / "Segmentation" / f"{title}.txt").write_text("".join(f"{name}\n" for name in own))


def _write_scene(folder: Path, name: str, made: Scene) -> None:
    from PIL import Image

    Image.fromarray(made.image).save(folder / "JPEGImages" / f"{name}.jpg", quality=QUALITY, subsampling=0)
    marked = Image.fromarray(labels_of(made)).convert("P")
    marked.putpalette([value for colour in voc_colours(256) for value in colour])
    marked.save(folder / "SegmentationClass" / f"{name}.png")


def labels_of(made: Scene) -> Labels:
    """0 for the background, the digit plus 1, and 255 on the background beside a digit."""
    labels = np.zeros(made.image.shape[:2], np.uint8)
    for mask, label in zip(made.masks, made.labels, strict=True):
        labels[mask] = label + 1
    ink = labels > 0
    labels[_grown(ink) & ~ink] = IGNORE
    return labels


def _grown(mask: Mask) -> Mask:
    """The mask and the eight neighbours of its pixels."""
    framed, (rows, columns) = np.pad(mask, 1), mask.shape
    grown: Mask = np.any([framed[r : r + rows, c : c + columns] for r in range(3) for c in range(3)], axis=0)
    return grown
