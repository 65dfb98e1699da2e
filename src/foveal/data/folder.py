"""A folder of images with one folder a class, as torchvision's ImageFolder: train/ and val/, or one to split."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from foveal.data.augmentation import Augment
from foveal.data.defaults import Defaults
from foveal.data.images import ImageData
from foveal.data.options import Augmentation, DataOptions
from foveal.data.picture import SUFFIXES, UnreadableError, check_picture, read_picture
from foveal.data.pictures import PictureSplit
from foveal.data.preparation import Preparation
from foveal.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

EVERY = 5  # of one folder every fifth image of a class, in the order of names, is validation
MADE_FOR = Defaults(224, 0.875, Augmentation(crop="resized", scale=(0.25, 1.0), flip=0.5))
SHAPE = "It must hold train/ and val/, each with one folder of images a class, or such class folders alone."
Labelled = list[tuple[Path, int]]


class FolderSplit(PictureSplit):
    """Images of files."""

    def __init__(self, images: Labelled, preparation: Preparation, augment: Augment | None = None) -> None:
        super().__init__([label for _, label in images], preparation, augment)
        self.paths = [path for path, _ in images]

    def image(self, index: int) -> Image:
        return read_picture(self.paths[index])


def folder(path: Path, options: DataOptions) -> ImageData:
    """The images of a folder. Those that cannot be read are left out, each with its reason.

    Raises:
        DataError: there are no classes, a class has no readable images, or the two sides have different classes.
    """
    sides = [path / name for name in ("train", "val") if (path / name).is_dir()]
    if len(sides) == 1:
        raise DataError(f"load: {path} holds {sides[0].name}/ without the other of train/ and val/. {SHAPE}")
    classes = class_names(sides[0] if sides else path)
    if sides and class_names(sides[1]) != classes:
        other = sorted(set(classes) ^ set(class_names(sides[1])))
        raise DataError(
            f"load: the classes of {sides[0]} and {sides[1]} differ: {', '.join(other[:5])} is on one side only. "
            "Give both the same class folders."
        )
    found = [images_of(side, classes) for side in sides] if sides else [images_of(path, classes)]
    skipped = unreadable([image for side in found for image, _ in side])
    whole = [[(image, label) for image, label in side if image not in skipped] for side in found]
    for side, name in zip(whole, sides or [path], strict=True):
        require_every_class(side, classes, name, least=1 if sides else 2, skipped=len(skipped))
    train, val = whole if sides else split(whole[0])
    preparation = MADE_FOR.preparation(options)
    return ImageData(
        name=str(path),
        classes=classes,
        channels=3,
        size=preparation.size,
        train=FolderSplit(train, preparation, MADE_FOR.augment(options)),
        val=FolderSplit(val, preparation),
        preparation=preparation,
        backbone="resnet18",
        fingerprint=fingerprint(path, train, val),
        skipped=tuple(f"{image}: {reason}" for image, reason in skipped.items()),
    )


def class_names(path: Path) -> tuple[str, ...]:
    """Names of the class folders, sorted; hidden folders are no classes."""
    names = tuple(sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
    if len(names) < 2:
        raise DataError(f"load: {path} holds {len(names)} class folders, at least 2 are needed. {SHAPE}")
    return names


def images_of(path: Path, classes: tuple[str, ...]) -> Labelled:
    """Every file with the name of an image, at any depth of its class folder, sorted."""
    found: Labelled = []
    for label, name in enumerate(classes):
        files = [Path(top) / file for top, _, names in os.walk(path / name) for file in names]
        images = sorted(file for file in files if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
        if not images:
            raise DataError(
                f"load: the class {name!r} in {path} has no images. Remove its folder or add images "
                f"({', '.join(sorted(SUFFIXES))})."
            )
        found += [(image, label) for image in images]
    return found


def unreadable(images: list[Path]) -> dict[Path, str]:
    """Those that cannot be read to their end, with the reason."""

    def reason(image: Path) -> str | None:
        try:
            check_picture(image)
        except UnreadableError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return {image: told for image, told in zip(images, pool.map(reason, images), strict=True) if told is not None}


def require_every_class(images: Labelled, classes: tuple[str, ...], path: Path, *, least: int, skipped: int) -> None:
    """Raise where a class has fewer than ``least`` readable images."""
    if not images:
        raise DataError(f"load: none of the {skipped} images in {path} can be read. Give whole image files.")
    labels = [label for _, label in images]
    for label, name in enumerate(classes):
        if labels.count(label) < least:
            raise DataError(
                f"load: the class {name!r} in {path} has {labels.count(label)} readable images, at least {least} "
                "needed. Add images or remove its folder."
            )


def split(images: Labelled) -> tuple[Labelled, Labelled]:
    """Of each class every fifth image in the order of names, at least one, is validation."""
    train: Labelled = []
    val: Labelled = []
    by_class: dict[int, list[Path]] = {}
    for image, label in images:
        by_class.setdefault(label, []).append(image)
    for label, own in by_class.items():
        every = min(EVERY, len(own))
        for rank, image in enumerate(own):
            (val if rank % every == every - 1 else train).append((image, label))
    return train, val


def fingerprint(path: Path, train: Labelled, val: Labelled) -> str:
    """Of the names, labels and sizes of all images."""
    digest = hashlib.sha256()
    for side in (train, val):
        for image, label in side:
            digest.update(f"{image.relative_to(path)}\0{label}\0{image.stat().st_size}\n".encode())
        digest.update(b"\n")
    return f"folder-{digest.hexdigest()[:16]}"
