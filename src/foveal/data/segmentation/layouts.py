"""The layouts of the published sets, and a general folder: which files are pairs, and on which side."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from foveal.data.listing import Entry
from foveal.data.segmentation import classes
from foveal.data.segmentation.classes import RGB, voc_colours
from foveal.data.segmentation.labels import IGNORE, MOST_CLASSES, Coding
from foveal.data.segmentation.options import SegmentationData
from foveal.data.segmentation.pairs import LOSSY, Pair, Pairs, by_stem, matched
from foveal.errors import DataError

AUGMENTED = "SegmentationClassAug"
EVERY = 5  # of one folder every fifth image, in the order of names, is validation

VOC = (
    "It must hold JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/train.txt and val.txt, as "
    "VOCdevkit/VOC2012 has them; SegmentationClassAug/ and train_aug.txt for the augmented labels."
)
ADE20K = "It must hold images/training, images/validation and the same in annotations/, as ADEChallengeData2016 has."
CITYSCAPES = (
    "It must hold leftImg8bit/train, leftImg8bit/val and the same in gtFine/, with a file ending in "
    "_gtFine_labelIds.png or _gtFine_labelTrainIds.png for each image."
)
FOLDER = (
    "It must hold classes.txt with the name of a class on each line, images/ and labels/ (PNG, the number of the class "
    "in each pixel from 0 on, 255 where it does not count), both with train/ and val/ in them or without."
)


@dataclass(frozen=True)
class Found:
    """What a layout's reader makes of a folder."""

    classes: tuple[str, ...]
    colours: tuple[RGB, ...]
    train: Pairs
    val: Pairs


class _Side(NamedTuple):
    """A list of names, and where it stands."""

    names: list[str]
    where: str


def voc(path: Path, options: SegmentationData, names: tuple[str, ...] = classes.VOC) -> Found:
    """Pascal VOC 2012: lists of names, JPEG images, PNG labels with a palette.

    A list whose name has ``aug`` in it takes the labels of SegmentationClassAug, where that folder is. Lines hold a
    name, or the two paths that DeepLab's lists have.
    """
    root = _first(path, (".", "VOC2012", "VOCdevkit/VOC2012"), "JPEGImages", VOC)
    images = by_stem(root, "JPEGImages", VOC)
    extra = by_stem(root, AUGMENTED, VOC) if (root / AUGMENTED).is_dir() else {}
    # Some have the augmented labels alone, those of the original images among them.
    plain = {} if extra and not (root / "SegmentationClass").is_dir() else by_stem(root, "SegmentationClass", VOC)
    train, val = (_voc_list(root, name) for name in (options.train or "train", options.val or "val"))
    _tell_shared(train, val)
    sides = []
    for side in (train, val):
        labels = plain | extra if "aug" in Path(side.where).stem or not plain else plain
        sides.append(matched(images, labels, side.names, side.where))
    coding = Coding.plain(len(names))
    return Found(names, voc_colours(len(names)), *(Pairs(root, side, coding) for side in sides))


def _voc_list(root: Path, name: str) -> _Side:
    folder = root / "ImageSets" / "Segmentation"
    spelled = dict.fromkeys((name, name.replace("_", ""), name.replace("aug", "_aug").replace("__", "_")))
    path = next((folder / f"{way}.txt" for way in spelled if (folder / f"{way}.txt").is_file()), None)
    if path is None:
        there = ", ".join(sorted(file.stem for file in folder.glob("*.txt"))) or "none"
        raise DataError(f"load: there is no list {folder / name}.txt, there are: {there}. {VOC}")
    lines = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if not lines:
        raise DataError(f"load: {path} is empty. Give a list with the name of an image on each line.")
    names = [Path(line[0]).stem if "/" in line[0] else line[0] for line in lines]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"load: {path} names {twice} twice. Name each image once.")
    return _Side(names, str(path))


def ade20k(path: Path, options: SegmentationData) -> Found:
    """ADE20K scene parsing: 150 classes, numbered from 1 in the files, where 0 does not count."""
    root = _first(path, (".", "ADEChallengeData2016"), "annotations", ADE20K)
    values = {0: IGNORE} | {number + 1: number for number in range(len(classes.ADE20K))}
    coding = Coding(values, "0, which does not count, and 1 to 150")
    sides = [
        _folders(root, f"images/{name}", f"annotations/{name}", ADE20K)
        for name in (options.train or "training", options.val or "validation")
    ]
    return Found(classes.ADE20K, voc_colours(151)[1:], *(Pairs(root, side, coding) for side in sides))


def cityscapes(path: Path, options: SegmentationData) -> Found:
    """Cityscapes: 19 of its 34 values count; labelTrainIds files have these already."""
    root = _first(path, (".",), "leftImg8bit", CITYSCAPES)
    sides, ending = [], ""
    for name in (options.train or "train", options.val or "val"):
        images = _without(by_stem(root, f"leftImg8bit/{name}", CITYSCAPES), "_leftImg8bit")
        found = by_stem(root, f"gtFine/{name}", CITYSCAPES)
        endings = [ending] if ending else ["_gtFine_labelIds", "_gtFine_labelTrainIds"]
        ending = next((end for end in endings if any(stem.endswith(end) for stem in found)), endings[0])
        sides.append(matched(images, _without(found, ending), sorted(images), f"{root}/leftImg8bit/{name}"))
    if ending == "_gtFine_labelTrainIds":
        coding = Coding.plain(len(classes.CITYSCAPES), coloured=False)
    else:
        values = dict.fromkeys([*range(classes.CITYSCAPES_VALUES), IGNORE], IGNORE)
        values |= {value: place for place, value in enumerate(classes.CITYSCAPES_IDS)}
        coding = Coding(values, f"0 to {classes.CITYSCAPES_VALUES - 1}, and {IGNORE} for what does not count")
    return Found(classes.CITYSCAPES, classes.CITYSCAPES_COLOURS, *(Pairs(root, side, coding) for side in sides))


def _without(entries: dict[str, Entry], ending: str) -> dict[str, Entry]:
    """The entries that end so, by what is before it."""
    return {stem.removesuffix(ending): entry for stem, entry in entries.items() if stem.endswith(ending)}


def folder(path: Path, options: SegmentationData) -> Found:
    """Images and labels of equal names, and classes.txt; train/ and val/ within both, or every fifth is validation."""
    names = class_names(path / "classes.txt")
    sides = [options.train or "train", options.val or "val"]
    inner = all((path / "images" / side).is_dir() for side in sides)
    if not inner and (options.train or options.val):
        raise DataError(f"load: {path / 'images'} must hold {sides[0]}/ and {sides[1]}/. {FOLDER}")
    if inner:
        pairs = [_folders(path, f"images/{side}", f"labels/{side}", FOLDER) for side in sides]
    else:
        pairs = _split(_folders(path, "images", "labels", FOLDER), path)
    # Anyone's palette: some of its colours may be VOC's, of other classes.
    coding = Coding.plain(len(names), renumbered=False)
    return Found(names, voc_colours(len(names)), *(Pairs(path, side, coding) for side in pairs))


def class_names(path: Path) -> tuple[str, ...]:
    """A name on each line.

    Raises:
        DataError: there is no such file, or it does not name 2 to 255 different classes.
    """
    if not path.is_file():
        raise DataError(f"load: there is no file {path}. {FOLDER}")
    names = tuple(line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    while names and not names[-1]:
        names = names[:-1]
    wrong = next((name for n, name in enumerate(names) if not name or name in names[:n]), None)
    if wrong is not None:
        told = f"{wrong!r} is there twice" if wrong else "a line is empty"
        raise DataError(f"load: {path} must name each class once, {told}. The first line names number 0.")
    if not 2 <= len(names) <= MOST_CLASSES:
        raise DataError(f"load: {path} names {len(names)} classes, 2 to {MOST_CLASSES} are wanted. Name one a line.")
    return names


def _split(pairs: Sequence[Pair], path: Path) -> list[list[Pair]]:
    if len(pairs) < 2:
        raise DataError(f"load: {path / 'images'} holds 1 image, at least 2 are wanted. Add images with labels.")
    every = min(EVERY, len(pairs))
    return [[pair for n, pair in enumerate(pairs) if (n % every == every - 1) == val] for val in (False, True)]


def _folders(root: Path, images: str, labels: str, wanted: str) -> list[Pair]:
    """Every image of a folder with the labels of its name in another one."""
    found, marked = by_stem(root, images, wanted), by_stem(root, labels, wanted)
    lossy = next((entry[0] for entry in marked.values() if Path(entry[0]).suffix.lower() in LOSSY), None)
    if lossy is not None:
        raise DataError(f"load: {root / lossy} is no PNG, and other formats change labels. Store labels as PNG.")
    if not found:
        raise DataError(f"load: {root / images} holds no images. {wanted}")
    return matched(found, marked, sorted(found), str(root / images))


def _first(path: Path, places: Sequence[str], inside: str, wanted: str) -> Path:
    if not path.is_dir():
        raise DataError(f"load: {path} {'is a file' if path.exists() else 'does not exist'}. {wanted}")
    root = next((path / place for place in places if (path / place / inside).is_dir()), None)
    if root is None:
        raise DataError(f"load: there is no {inside}/ in {path}. {wanted}")
    return root


def _tell_shared(train: _Side, val: _Side) -> None:
    shared = len(set(train.names) & set(val.names))
    if shared:
        warnings.warn(
            f"load: {train.where} and {val.where} share {shared} images, so what is measured was trained on.",
            stacklevel=2,
        )
