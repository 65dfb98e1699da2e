"""Tiny ImageNet: 200 classes of ImageNet at 64x64 pixels, its validation images in one folder with a list."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from foveal.data.checks import readable
from foveal.data.defaults import Defaults
from foveal.data.folder import every_class, of_files, require_every_class
from foveal.data.images import ImageData
from foveal.data.listing import Files, as_files, files_of, images_under
from foveal.data.names import read_words, unique
from foveal.data.options import Augmentation, DataOptions
from foveal.errors import DataError

FOLDER = "tiny-imagenet-200"
SIZE = 64
SHAPE = (
    "Fetch tiny-imagenet-200.zip from http://cs231n.stanford.edu/tiny-imagenet-200.zip, unpack it, and give the folder "
    f"that holds {FOLDER}/ (wnids.txt, words.txt, train/<wnid>/images/, val/images/, val/val_annotations.txt)."
)


def shape(name: str) -> str:
    """What to fetch, and how the folder has to look."""
    return SHAPE


def tiny_imagenet(path: Path, options: DataOptions) -> ImageData:
    """The folder that the archive unpacks to, or the one that holds it. Classes are in the order of their synsets.

    Raises:
        DataError: a file or folder is missing, or a list names what is not there.
    """
    root = path / FOLDER if (path / FOLDER).is_dir() else path
    missing = [name for name in ("wnids.txt", "train", "val/images", "val/val_annotations.txt") if not _is(root, name)]
    if missing:
        raise DataError(f"load: {root} lacks {', '.join(missing)} of tiny-imagenet. {SHAPE}")
    wnids = sorted(set((root / "wnids.txt").read_text().split()))
    if absent := [wnid for wnid in wnids if not (root / "train" / wnid).is_dir()]:
        raise DataError(f"load: {root}/train lacks the classes {', '.join(absent[:5])} of wnids.txt. {SHAPE}")
    train = every_class(files_of(root, [f"train/{wnid}" for wnid in wnids]), wnids)
    whole, reasons = readable([train, _validation(root, wnids)], options)
    for side, name in zip(whole, ("train", "val"), strict=True):
        require_every_class(side, wnids, root / name, least=1, skipped=len(reasons))
    words = read_words(root / "words.txt") if (root / "words.txt").is_file() else {}
    size = options.size or SIZE
    # An eighth of the image around it, as for CIFAR.
    made_for = Defaults(SIZE, 1.0, Augmentation(crop="padded", padding=size // 8, flip=0.5))
    return of_files(whole, unique(wnids, words), reasons, made_for, options, name="tiny-imagenet", kind="tiny-imagenet")


def _is(root: Path, name: str) -> bool:
    return (root / name).is_file() if name.endswith(".txt") else (root / name).is_dir()


def _validation(root: Path, wnids: list[str]) -> Files:
    """The validation images with the classes that their list gives."""
    classes = {wnid: label for label, wnid in enumerate(wnids)}
    there = {name.rpartition("/")[2]: (name, size, time) for name, size, time in images_under(root, "val/images")}
    entries, labels = [], []
    for number, line in enumerate((root / "val" / "val_annotations.txt").read_text().splitlines(), 1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in classes or name not in there:
            what = (
                f"the class {wnid!r}, which wnids.txt lacks" if name in there else f"{name!r}, which val/images lacks"
            )
            raise DataError(f"load: line {number} of {root}/val/val_annotations.txt names {what}. Unpack it anew.")
        entries.append(there.pop(name))
        labels.append(classes[wnid])
    if there:
        raise DataError(
            f"load: {root}/val/val_annotations.txt says nothing of {next(iter(there))} and {len(there) - 1} more of "
            "val/images. Unpack it anew, or remove them."
        )
    return as_files(root, entries, np.array(labels, np.int32))
