"""Data sets with a class for every pixel, by name; any other name is the path of a general folder."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from foveal.data.generated import place_of
from foveal.data.preparation import Normalisation
from foveal.data.segmentation import classes, layouts
from foveal.data.segmentation.augmentation import Draw
from foveal.data.segmentation.layouts import Found
from foveal.data.segmentation.options import DEFAULT_NAME, SegmentationData
from foveal.data.segmentation.pairs import fingerprint, readable
from foveal.data.segmentation.split import LabelledSplit, SegmentationSet
from foveal.errors import DataError, OptionError


@dataclass(frozen=True)
class Layout:
    """How a set is read, what its folder must look like, and how many images its authors count by list."""

    read: Callable[[Path, SegmentationData], Found]
    wanted: str
    names: tuple[str, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()
    """Lists to train on, the set's own first."""


LAYOUTS = {
    DEFAULT_NAME: Layout(
        partial(layouts.voc, names=classes.DIGITS), layouts.VOC, classes.DIGITS, (("train", 800), ("trainval", 1000))
    ),
    "voc": Layout(
        layouts.voc, layouts.VOC, classes.VOC,
        (("train", 1464), ("val", 1449), ("trainval", 2913), ("train_aug", 10582), ("trainaug", 10582)),
    ),
    "ade20k": Layout(layouts.ade20k, layouts.ADE20K, classes.ADE20K, (("training", 20210), ("validation", 2000))),
    "cityscapes": Layout(layouts.cityscapes, layouts.CITYSCAPES, classes.CITYSCAPES, (("train", 2975), ("val", 500))),
    "folder": Layout(layouts.folder, layouts.FOLDER),
}  # fmt: skip


def load(options: SegmentationData) -> SegmentationSet:
    """The data set that these options name, from where they say, drawn as they say.

    Raises:
        DataError: the files are missing or not what they should be; the message says how they have to look.
        OptionError: an option is out of range.
    """
    normalisation = normalisation_of(options)
    draw = Draw(options.augmentation, normalisation)
    layout, path = _place(options)
    found = layout.read(path, options)
    (train, val), reasons = readable((found.train, found.val), options)
    return SegmentationSet(
        name=options.name,
        classes=found.classes,
        colours=found.colours,
        train=LabelledSplit(train, normalisation, draw),
        val=LabelledSplit(val, normalisation),
        fingerprint=fingerprint(options.name if options.name in LAYOUTS else "folder", (train, val), found.classes),
        skipped=tuple(f"{train.root / image}: {reason}" for image, reason in reasons.items()),
    )


def normalisation_of(options: SegmentationData) -> Normalisation:
    """Mean and deviation, three of each."""
    for name in ("mean", "std"):
        values = getattr(options, name)
        if len(values) != 3 or (name == "std" and min(values) <= 0):
            told = "three numbers above 0" if name == "std" else "three numbers"
            raise OptionError(f"train: --data.{name} must be {told}, got {values}. Leave it out for ImageNet's.")
    return Normalisation(tuple(options.mean), tuple(options.std))


def _place(options: SegmentationData) -> tuple[Layout, Path]:
    """How a name is read, and where its files lie."""
    name, layout = options.name, LAYOUTS.get(options.name)
    if layout is None:
        if options.path is not None or not Path(name).is_dir():
            near = difflib.get_close_matches(name, LAYOUTS, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise DataError(
                f"load: there is no segmentation data set or folder {name!r}. {hint}Use {', '.join(LAYOUTS)}, or the "
                f"path of a folder. {layouts.FOLDER}"
            )
        return LAYOUTS["folder"], Path(name)
    return layout, place_of(name, options.path, layout.wanted)
