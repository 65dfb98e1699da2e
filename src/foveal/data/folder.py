"""A folder of images with one folder a class, as torchvision's ImageFolder: train/ and val/, or one to split."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foveal.data.augmentation import Augment
from foveal.data.checks import readable
from foveal.data.defaults import Defaults
from foveal.data.images import ImageData
from foveal.data.listing import Files, files_of
from foveal.data.options import Augmentation, DataOptions
from foveal.data.picture import SUFFIXES, UnreadableError, read_picture
from foveal.data.pictures import PictureSplit
from foveal.data.preparation import Preparation
from foveal.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

ESCAPE = "surrogateescape"  # names on disk need not be text
EVERY = 5  # of one folder every fifth image of a class, in the order of names, is validation
MADE_FOR = Defaults(224, 0.875, Augmentation(crop="resized", scale=(0.25, 1.0), flip=0.5))
SHAPE = "It must hold train/ and val/, each with one folder of images a class, or such class folders alone."


class FolderSplit(PictureSplit):
    """Images of files."""

    def __init__(self, files: Files, preparation: Preparation, augment: Augment | None = None) -> None:
        super().__init__(array("i", files.labels.tolist()), preparation, augment)
        self.paths = files.paths()

    def image(self, index: int) -> Image:
        path = self.paths[index]
        try:
            return read_picture(path)
        except UnreadableError as error:
            raise DataError(
                f"load: {path} cannot be read: {error}. Restore it and go on, "
                "or name it in a file for --data.skip and begin anew."
            ) from error


def shape(name: str) -> str:
    """What to fetch, and how the folder has to look."""
    return SHAPE


def folder(path: Path, options: DataOptions) -> ImageData:
    """The images of a folder. Those that cannot be read are left out, each with its reason.

    Raises:
        DataError: there are no classes, a class has no readable images, or the two sides have different classes.
    """
    require_folder(path, f"folder of images. {SHAPE}")
    sides = [name for name in ("train", "val") if (path / name).is_dir()]
    if len(sides) == 1:
        raise DataError(f"load: {path} holds {sides[0]}/ without the other of train/ and val/. {SHAPE}")
    classes = same_classes(path / sides[0], path / sides[1]) if sides else class_names(path)
    found = [every_class(files_of(path, [f"{side}/{name}" for name in classes]), classes) for side in sides]
    found = found or [every_class(files_of(path, classes), classes)]
    whole, reasons = readable(found, options)
    for side, name in zip(whole, sides or [""], strict=True):
        require_every_class(side, classes, path / name, least=1 if sides else 2, skipped=len(reasons))
    return of_files(whole if sides else split(whole[0]), classes, reasons, MADE_FOR, options, name=str(path))


def of_files(
    sides: Sequence[Files],
    classes: tuple[str, ...],
    reasons: dict[str, str],
    made_for: Defaults,
    options: DataOptions,
    *,
    name: str,
    backbone: str = "resnet18",
    kind: str = "folder",
) -> ImageData:
    """Files, those to train on and those to validate with, as data, with what is to be known of them."""
    train, val = sides
    preparation = made_for.preparation(options)
    return ImageData(
        name=name,
        classes=classes,
        channels=3,
        size=preparation.size,
        train=FolderSplit(train, preparation, made_for.augment(options)),
        val=FolderSplit(val, preparation),
        preparation=preparation,
        backbone=backbone,
        fingerprint=fingerprint(kind, train, val),
        skipped=tuple(f"{train.root / image}: {reason}" for image, reason in reasons.items()),
    )


def require_folder(path: Path, wanted: str) -> None:
    """Raise where a path is none of a folder; ``wanted`` goes on after ``a`` and says what to do."""
    if not path.is_dir():
        told = "is a file" if path.exists() else "does not exist"
        raise DataError(f"load: {path} {told}, wanted is a {wanted}")


def same_classes(train: Path, val: Path) -> tuple[str, ...]:
    """The class folders of both sides."""
    classes = class_names(train)
    if class_names(val) != classes:
        other = sorted(set(classes) ^ set(class_names(val)))
        raise DataError(
            f"load: the classes of {train} and {val} differ: {', '.join(other[:5])} is on one side only. "
            "Give both the same class folders."
        )
    return classes


def class_names(path: Path) -> tuple[str, ...]:
    """Names of the class folders, sorted; hidden folders are no classes."""
    names = tuple(sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
    if len(names) < 2:
        raise DataError(f"load: {path} holds {len(names)} class folders, at least 2 are needed. {SHAPE}")
    return names


def every_class(files: Files, classes: Sequence[str]) -> Files:
    """The files, where each class has some."""
    counts = np.bincount(files.labels, minlength=len(classes))
    for name, count in zip(classes, counts.tolist(), strict=True):
        if count == 0:
            raise DataError(
                f"load: the class {name!r} in {files.root} has no images. Remove its folder or add images "
                f"({', '.join(sorted(SUFFIXES))})."
            )
    return files


def require_every_class(files: Files, classes: Sequence[str], path: Path, *, least: int, skipped: int) -> None:
    """Raise where a class has fewer than ``least`` readable images."""
    if not len(files):
        raise DataError(f"load: none of the {skipped} images in {path} can be read. Give whole image files.")
    counts = np.bincount(files.labels, minlength=len(classes))
    for name, count in zip(classes, counts.tolist(), strict=True):
        if count < least:
            raise DataError(
                f"load: the class {name!r} in {path} has {count} readable images, at least {least} "
                "needed. Add images or remove its folder."
            )


def split(files: Files) -> tuple[Files, Files]:
    """Of each class every fifth image in the order of names, at least one, is validation."""
    counts = np.bincount(files.labels)
    rank = np.concatenate([np.arange(count) for count in counts])
    every = np.minimum(EVERY, counts)[files.labels]
    held_out = rank % every == every - 1
    return files.take(np.flatnonzero(~held_out)), files.take(np.flatnonzero(held_out))


def fingerprint(kind: str, train: Files, val: Files) -> str:
    """Of the names, labels and sizes of all images."""
    digest = hashlib.sha256()
    for side in (train, val):
        rows = zip(side.names, side.labels.tolist(), side.sizes.tolist(), strict=True)
        digest.update("".join(f"{name}\0{label}\0{size}\n" for name, label, size in rows).encode(errors=ESCAPE))
        digest.update(b"\n")
    return f"{kind}-{digest.hexdigest()[:16]}"
