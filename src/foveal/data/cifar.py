"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), in the Python or the binary layout of their archives."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveal.data.defaults import Defaults
from foveal.data.images import ImageData
from foveal.data.memory import MemorySplit
from foveal.data.options import Augmentation, DataOptions
from foveal.data.plain_pickle import RefusedError, read_plain_pickle
from foveal.errors import DataError

Rows = np.ndarray[Any, np.dtype[Any]]
NOTHING: Rows = np.empty(0, np.int64)
VALUES = 3 * 32 * 32
# Mean and deviation of CIFAR-100's training images differ from CIFAR-10's by a hundredth: one pair each.
MEANS = {"cifar10": (0.4914, 0.4822, 0.4465), "cifar100": (0.5071, 0.4865, 0.4409)}
STDS = {"cifar10": (0.2470, 0.2435, 0.2616), "cifar100": (0.2673, 0.2564, 0.2762)}
PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"


@dataclass(frozen=True)
class Layout:
    """Names of one archive's files and of what stands in them."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    names: str
    labels: str
    class_names: str
    row: int = 0
    """Bytes of labels in front of an image; 0 for pickles."""


LAYOUTS = {
    "cifar10": (
        Layout(
            "cifar-10-batches-py",
            "cifar-10-python.tar.gz",
            tuple(f"data_batch_{n}" for n in range(1, 6)),
            "test_batch",
            "batches.meta",
            "labels",
            "label_names",
        ),
        Layout(
            "cifar-10-batches-bin",
            "cifar-10-binary.tar.gz",
            tuple(f"data_batch_{n}.bin" for n in range(1, 6)),
            "test_batch.bin",
            "batches.meta.txt",
            "",
            "",
            row=1,
        ),
    ),
    "cifar100": (
        Layout(
            "cifar-100-python",
            "cifar-100-python.tar.gz",
            ("train",),
            "test",
            "meta",
            "fine_labels",
            "fine_label_names",
        ),
        Layout(
            "cifar-100-binary",
            "cifar-100-binary.tar.gz",
            ("train.bin",),
            "test.bin",
            "fine_label_names.txt",
            "",
            "",
            row=2,
        ),
    ),
}


def cifar(path: Path, options: DataOptions) -> ImageData:
    """CIFAR from the folder that its archive unpacks to, or from the one that holds that.

    Files with as many images as the published ones have to be those, by their MD5 (Python layout).

    Raises:
        DataError: a file is missing, damaged, changed, or asks to run anything.
    """
    name = options.name
    folder, layout = _found(path, name)
    classes = _class_names(folder / layout.names, layout)
    train = [_rows(folder / file, layout, len(classes)) for file in layout.train]
    val = _rows(folder / layout.test, layout, len(classes))
    images, labels = (torch.cat([rows[part] for rows in train]) for part in (0, 1))
    if not layout.row and (len(images), len(val[0])) == (50_000, 10_000):
        _require_published(folder, name)
    made_for = Defaults(32, 1.0, Augmentation(crop="padded", padding=4, flip=0.5), MEANS[name], STDS[name])
    preparation = made_for.preparation(options)
    return ImageData(
        name=name,
        classes=classes,
        channels=3,
        size=preparation.size,
        train=MemorySplit(images, labels, preparation, made_for.augment(options)),
        val=MemorySplit(*val, preparation),
        preparation=preparation,
        backbone="foveal_resnet_mini" if preparation.size < 64 else "resnet18",
        fingerprint=_fingerprint(name, images, labels, *val),
    )


def _found(path: Path, name: str) -> tuple[Path, Layout]:
    """The folder with the files, and which layout they have."""
    for layout in LAYOUTS[name]:
        for folder in (path / layout.folder, path):
            if (folder / layout.test).is_file() and folder.is_dir():
                missing = [file for file in (*layout.train, layout.names) if not (folder / file).is_file()]
                if missing:
                    raise DataError(
                        f"load: {folder} lacks {', '.join(missing)} of {name}. Unpack {layout.archive} anew."
                    )
                return folder, layout
    raise DataError(f"load: there is no {name} in {path}. {shape(name)}")


def shape(name: str) -> str:
    """What to fetch, and how the folder has to look."""
    first, second = LAYOUTS[name]
    return (
        f"Fetch {first.archive} from {PAGE}, unpack it, and give the folder that holds {first.folder}/ "
        f"({', '.join((*first.train, first.test, first.names))}), or that of {second.archive}."
    )


def _class_names(path: Path, layout: Layout) -> tuple[str, ...]:
    if layout.row:
        names: list[Any] = path.read_text(errors="replace").split()
    else:
        names = _pickle(path).get(layout.class_names, [])
    told = tuple(name.decode("latin1") if isinstance(name, bytes) else str(name) for name in names)
    if len(told) < 2:
        raise DataError(f"load: {path} names {len(told)} classes, at least 2 are wanted. Unpack {layout.archive} anew.")
    return told


def _rows(path: Path, layout: Layout, classes: int) -> tuple[Tensor, Tensor]:
    """Images ``(n, 3, 32, 32)``, 8 bits, and labels ``(n,)`` of one file."""
    pixels, labels = _binary_rows(path, layout) if layout.row else _pickled_rows(path, layout)
    if len(labels) == 0 or pixels.shape != (len(labels), VALUES):
        raise DataError(
            f"load: {path} does not hold rows of {VALUES} bytes with a label each, as {layout.archive} does. "
            "Unpack that anew."
        )
    own = torch.tensor(labels)
    if int(own.min()) < 0 or int(own.max()) >= classes:
        raise DataError(
            f"load: {path} has labels from {int(own.min())} to {int(own.max())} for {classes} classes. "
            f"Unpack {layout.archive} anew."
        )
    return torch.tensor(pixels).reshape(-1, 3, 32, 32), own


def _binary_rows(path: Path, layout: Layout) -> tuple[Rows, Rows]:
    raw, width = np.frombuffer(path.read_bytes(), np.uint8), VALUES + layout.row
    if len(raw) % width:
        return NOTHING, NOTHING
    rows = raw.reshape(-1, width)
    return rows[:, layout.row :], rows[:, layout.row - 1].astype(np.int64)


def _pickled_rows(path: Path, layout: Layout) -> tuple[Rows, Rows]:
    found = _pickle(path)
    pixels, labels = found.get("data"), found.get(layout.labels)
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, list):
        return NOTHING, NOTHING
    if not all(type(label) is int and abs(label) < 2**31 for label in labels):
        return NOTHING, NOTHING
    return pixels, np.array(labels, np.int64)


def _pickle(path: Path) -> dict[str, Any]:
    try:
        return read_plain_pickle(path.read_bytes())
    except RefusedError as error:
        raise DataError(
            f"load: {path} is no file of bytes and numbers as CIFAR's archive holds it: {error}. Unpack it anew."
        ) from error


def _require_published(folder: Path, name: str) -> None:
    """Raise where a file is not the one of the archive, whose sums torchvision keeps."""
    from torchvision import datasets

    published = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    sums = [*published.train_list, *published.test_list, (published.meta["filename"], published.meta["md5"])]
    for file, wanted in sums:
        told = hashlib.md5((folder / file).read_bytes(), usedforsecurity=False).hexdigest()
        if told != wanted:
            raise DataError(
                f"load: {folder / file} is not the published file: its MD5 is {told}, not {wanted}. Unpack the "
                "archive anew; images of your own go into a folder with one folder a class."
            )


def _fingerprint(name: str, *parts: Tensor) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.contiguous().numpy().tobytes())
    return f"{name}-{digest.hexdigest()[:16]}"
