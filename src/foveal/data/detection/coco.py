"""Images with boxes and masks in COCO's layout: folders of images, and a JSON file of objects for each."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from foveal.data.checks import readable
from foveal.data.detection.annotations import Annotations, Numbers, read_annotations
from foveal.data.detection.changes import Change
from foveal.data.detection.options import DetectionData
from foveal.data.detection.rle import check_segmentation
from foveal.data.detection.samples import CocoSamples
from foveal.data.generated import place_of
from foveal.data.listing import Files
from foveal.data.options import DataOptions
from foveal.errors import DataError

SUFFIX = {"coco": "2017"}
SHAPE = (
    "Fetch train2017.zip, val2017.zip and annotations_trainval2017.zip from https://cocodataset.org and unpack them in "
    "one folder, to train2017/, val2017/ and annotations/instances_train2017.json and instances_val2017.json."
)
OWN = (
    "A folder in COCO's format holds train/, val/, annotations/instances_train.json and instances_val.json; "
    "other names are given by --data.train-images, --data.train-annotations and the same two of val."
)
HOLE = "N/A"
"""The name of a class that no category has."""
MOST_CLASSES = 100_000
LEAST_EXTENT = 1e-2
"""Pixels: what is narrower has no extent in float32 once its image, of 65,000 pixels maybe, is mirrored and resized."""


@dataclass(frozen=True)
class DetectionSets:
    """Both sides of a data set, and what is to be known of them.

    Attributes:
        name: as asked for.
        classes: their names; class 0, the background, is none of them, so the n-th is label n + 1.
        category_ids: the ids that the annotation files have for them.
        fingerprint: changes when annotations or images do.
        skipped: one line for what was left out and why.
        train: to learn from.
        val: all images that can be read, also those without objects.
    """

    name: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    fingerprint: str
    skipped: tuple[str, ...]
    train: CocoSamples
    val: CocoSamples


@dataclass
class _Side:
    """One side while it is read."""

    annotations: Annotations
    files: Files
    left_out: list[str] = field(default_factory=list)


def load_detection(options: DetectionData, *, masks: bool) -> DetectionSets:
    """Both sides of a data set.

    Args:
        options: see there.
        masks: whether the objects' masks are needed.

    Raises:
        DataError: a file or folder is missing or not what it should be.
    """
    root, shape = _root(options), SHAPE if options.name == "coco" else OWN
    sides = [_side(root, *names, shape) for names in _names(options)]
    wanted = DataOptions(verify=options.verify, skip=options.skip)
    kept, reasons = readable([side.files for side in sides], wanted)
    train, val = sides
    if train.annotations.categories != val.annotations.categories:
        raise DataError(
            f"load: {train.annotations.path} and {val.annotations.path} have other categories. Give both the same ids "
            "and names."
        )
    for side, files in zip(sides, kept, strict=True):
        side.files = files
    _check_measured(val, masks)
    learned = _trainable(train, options.empty, masks)
    kinds = _classes(train.annotations.categories, options.labels)
    labels = {number: label for label, (number, _) in enumerate(kinds, 1)}
    change = Change(flip=options.flip, crop=options.crop, jitter=options.jitter)
    return DetectionSets(
        name=options.name,
        classes=tuple(name for _, name in kinds),
        category_ids=tuple(number for number, _ in kinds),
        fingerprint=f"coco-{_digest(train)}-{_digest(val)}",
        skipped=tuple(f"{root / name}: {why}" for name, why in reasons.items()) + tuple(train.left_out),
        train=CocoSamples(train.annotations, train.files, learned, labels, masks=masks, change=change),
        val=CocoSamples(val.annotations, val.files, np.arange(len(val.files)), labels, masks=False),
    )


def _digest(side: _Side) -> str:
    """Of a side's annotations, and of which images it has and their sizes in bytes."""
    there = np.stack([side.files.labels, side.files.sizes]).astype("<i8").tobytes()
    return hashlib.sha256(side.annotations.digest.encode() + there).hexdigest()[:16]


def _root(options: DetectionData) -> Path:
    wanted = SHAPE if options.name == "coco" else OWN
    path = place_of(options.name, options.path, wanted)
    if not path.is_dir():
        told = "is a file" if path.exists() else "does not exist"
        raise DataError(f"load: {path} {told}, wanted is a folder. {wanted}")
    return path


def _names(options: DetectionData) -> list[tuple[str, str]]:
    """Folder of images and file of objects of both sides, under the root."""
    year = SUFFIX.get(options.name, "")
    given = ((options.train_images, options.train_annotations), (options.val_images, options.val_annotations))
    return [
        (images or f"{side}{year}", objects or f"annotations/instances_{side}{year}.json")
        for side, (images, objects) in zip(("train", "val"), given, strict=True)
    ]


def _side(root: Path, folder: str, objects: str, shape: str) -> _Side:
    if not (root / folder).is_dir() or not (root / objects).is_file():
        missing = [name for name in (f"{folder}/", objects) if not (root / name).exists()]
        raise DataError(f"load: {root} lacks {' and '.join(missing) or folder}. {shape}")
    annotations = read_annotations(root / objects)
    return _Side(annotations, _files(root, folder, annotations))


def _files(root: Path, folder: str, annotations: Annotations) -> Files:
    """The images of a file in its order, with what tells whether one has changed."""
    names = [f"{folder}/{name}" for name in annotations.names]
    known = {place: _listed(root / place) for place in {name.rpartition("/")[0] for name in names}}
    told = [known[place].get(name) for place, _, name in (name.rpartition("/") for name in names)]
    missing = [name for name, there in zip(names, told, strict=True) if there is None]
    if missing:
        some = ", ".join(missing[:3]) + (" and so on" if len(missing) > 3 else "")
        raise DataError(
            f"load: {annotations.path} names {len(names):,} images, of which {root} lacks {len(missing):,}: {some}. "
            "Unpack all of them there."
        )
    sizes, times = (np.array([there[part] for there in told if there is not None], np.int64) for part in (0, 1))
    return Files(root, names, np.arange(len(names)), sizes, times)


def _listed(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file in a folder; nothing where it is none."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: _changed(entry) for entry in entries if entry.is_file()}
    except OSError:
        return {}


def _changed(entry: os.DirEntry[str]) -> tuple[int, int]:
    told = entry.stat()
    return told.st_size, told.st_mtime_ns


def _classes(categories: dict[int, str], labels: str) -> list[tuple[int, str]]:
    """Category and name of each class from 1 on."""
    if labels == "dense":
        return list(categories.items())
    least, most = min(categories), max(categories)
    if least < 1 or most > MOST_CLASSES:
        raise DataError(
            f"load: --data.labels ids needs categories of 1 to {MOST_CLASSES:,}, got {least:,} to {most:,}. Use "
            "--data.labels dense."
        )
    return [(number, categories.get(number, HOLE)) for number in range(1, max(categories) + 1)]


def _trainable(side: _Side, empty: bool, masks: bool) -> Numbers:
    """Which of the files are learned from; leaves out, and counts, objects without extent and images without any."""
    told, where = side.annotations, str(side.annotations.path)
    flat = _without_extent(told)
    if flat.any():
        first = told.objects[np.flatnonzero(flat)[0]]
        side.left_out.append(f"{where}: {flat.sum():,} boxes without any extent within their image, {first} the first")
    learned = ~flat & ~told.crowds
    if masks:
        _check_shapes(told, learned)
    told.learned = learned
    counts = np.add.reduceat(np.append(learned, False), told.starts[:-1]) * (np.diff(told.starts) > 0)
    if not counts.any():
        raise DataError(f"load: {where} has no object to learn from. Give annotations with boxes.")
    full = counts[side.files.labels] > 0
    if empty or full.all():
        return np.arange(len(side.files))
    side.left_out.append(
        f"{where}: {int((~full).sum()):,} of {len(full):,} images, which have no object; --data.empty keeps them"
    )
    return np.flatnonzero(full)


def _check_measured(side: _Side, masks: bool) -> None:
    """Say before anything is trained that there is nothing to measure on."""
    told = side.annotations
    chosen = np.isin(told.owners, side.files.labels)
    if not (chosen & ~told.crowds & (told.areas >= 0)).any():
        raise DataError(f"load: {told.path} has no object to measure on. Give annotations with boxes.")
    if masks:
        _check_shapes(told, chosen)


def _check_shapes(told: Annotations, chosen: Numbers) -> None:
    """Raise where a chosen object has no segmentation, or one that is none of its image."""
    bare, wrong, sizes = list[int](), dict[int, str](), told.sizes[told.owners]
    for place in np.flatnonzero(chosen).tolist():
        shape = told.shapes[place]
        if shape is None:
            bare.append(place)
            continue
        try:
            check_segmentation(shape, *sizes[place].tolist())
        except ValueError as error:
            wrong[place] = str(error)
    if bare:
        raise DataError(
            f"load: {told.path} has {len(bare):,} objects without a segmentation, {told.objects[bare[0]]} the first, "
            "and this model learns masks. Use faster_rcnn or retinanet, or add the segmentations."
        )
    if wrong:
        first, why = next(iter(wrong.items()))
        raise DataError(
            f"load: {told.path} has {len(wrong):,} objects whose segmentation is none, annotation "
            f"{told.objects[first]} the first: {why}. Mend or remove them, or use faster_rcnn or retinanet."
        )


def _without_extent(told: Annotations) -> Numbers:
    """Whether nothing of a box lies within its image."""
    rows, columns = told.sizes[told.owners].T
    left, top, width, height = told.boxes.T
    across = np.minimum(left + width, columns) - np.maximum(left, 0)
    down = np.minimum(top + height, rows) - np.maximum(top, 0)
    flat: Numbers = ~((across >= LEAST_EXTENT) & (down >= LEAST_EXTENT))
    return flat
