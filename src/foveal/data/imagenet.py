"""ImageNet (ILSVRC 2012) as a folder of JPEGs a class; validation images so too, or in one folder with their list."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from foveal.data.checks import readable
from foveal.data.defaults import Defaults
from foveal.data.folder import class_names, every_class, of_files, require_every_class, same_classes
from foveal.data.images import ImageData
from foveal.data.listing import Files, as_files, files_of, images_under
from foveal.data.names import imagenet_words, read_words, unique
from foveal.data.options import Augmentation, DataOptions
from foveal.errors import DataError

MADE_FOR = Defaults(224, 0.875, Augmentation(crop="resized", flip=0.5))
INNER = Path("ILSVRC") / "Data" / "CLS-LOC"
SOLUTION, MAPPING = "LOC_val_solution.csv", "LOC_synset_mapping.txt"
SHAPE = (
    "Fetch ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from https://image-net.org (an account is needed) and "
    f"unpack them to train/<wnid>/*.JPEG and val/<wnid>/*.JPEG; or {INNER.as_posix()}/ with {SOLUTION} beside ILSVRC/."
)


def shape(name: str) -> str:
    """What to fetch, and how the folder has to look."""
    return SHAPE


def imagenet(path: Path, options: DataOptions) -> ImageData:
    """A folder with train/ and val/ of class folders, or the one that holds ILSVRC/Data/CLS-LOC.

    Raises:
        DataError: a file or folder is missing, or the list names what is not there.
    """
    root = path / INNER if (path / INNER).is_dir() else path
    missing = [name for name in ("train", "val") if not (root / name).is_dir()]
    if missing:
        raise DataError(f"load: {root} lacks {' and '.join(f'{name}/' for name in missing)} of imagenet. {SHAPE}")
    if not any(entry.is_dir() for entry in (root / "val").iterdir()):
        listed = next((folder / SOLUTION for folder in (path, root) if (folder / SOLUTION).is_file()), None)
        if listed is None:
            raise DataError(
                f"load: {root}/val/ has no class folders. Sort its images into val/<wnid>/, or put {SOLUTION}, which "
                f"gives their classes, into {path}."
            )
        wnids = class_names(root / "train")
        val = _listed(root, listed, wnids)
    else:
        wnids = same_classes(root / "train", root / "val")
        val = every_class(files_of(root, [f"val/{wnid}" for wnid in wnids]), wnids)
    train = every_class(files_of(root, [f"train/{wnid}" for wnid in wnids]), wnids)
    whole, reasons = readable([train, val], options)
    for side, name in zip(whole, ("train", "val"), strict=True):
        require_every_class(side, wnids, root / name, least=1, skipped=len(reasons))
    given = next((f / n for f in (path, root) for n in (MAPPING, "words.txt") if (f / n).is_file()), None)
    words = read_words(given) if given is not None else imagenet_words()
    return of_files(
        whole,
        unique(wnids, words),
        reasons,
        MADE_FOR,
        options,
        name="imagenet",
        kind="imagenet",
        backbone="resnet50",
    )


def _listed(root: Path, path: Path, wnids: tuple[str, ...]) -> Files:
    """Validation images of one folder: a line each with the name and, first of its boxes, the synset."""
    classes = {wnid: label for label, wnid in enumerate(wnids)}
    with path.open(newline="", encoding="utf-8") as file:
        rows = {row["ImageId"]: row["PredictionString"].split()[:1] for row in csv.DictReader(file) if _complete(row)}
    entries, labels = images_under(root, "val"), []
    for name, _, _ in entries:
        wnid = rows.get(Path(name).stem, [])
        if not wnid or wnid[0] not in classes:
            what = f"gives it {wnid[0]}, which train/ lacks" if wnid else "says nothing of it"
            raise DataError(f"load: {path} has to give the class of {root / name} and {what}. Fetch the list anew.")
        labels.append(classes[wnid[0]])
    return as_files(root, entries, np.array(labels, np.int32))


def _complete(row: dict[str, str]) -> bool:
    return bool(row.get("ImageId")) and row.get("PredictionString") is not None
