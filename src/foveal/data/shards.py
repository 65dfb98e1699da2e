"""Images in tar files, as WebDataset lays them out, read where they lie: any image at any time.

Departure from the webdataset package, whose writer makes such files: that reads a shard from its start, so an epoch can
be taken up in its middle only by reading all that went before, and its order depends on the number of workers. Here
the place of each image is looked up once and an image is read by one call, so order, augmentation and
resumption are those of every other data set. Shards have to be files, uncompressed; nothing in them is unpickled.
"""

from __future__ import annotations

import hashlib
import os
import re
from array import array
from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from foveal.data.augmentation import Augment
from foveal.data.checks import SKIPPED, level_of, to_skip
from foveal.data.defaults import Defaults
from foveal.data.images import ImageData
from foveal.data.listing import Paths
from foveal.data.names import imagenet_synsets, imagenet_words, unique
from foveal.data.options import Augmentation, DataOptions
from foveal.data.picture import UnreadableError, quiet, read_picture
from foveal.data.pictures import PictureSplit
from foveal.data.preparation import Preparation
from foveal.data.samples import mix
from foveal.data.shard_index import Shard, shard
from foveal.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

MADE_FOR = Defaults(224, 0.875, Augmentation(crop="resized", flip=0.5))
MIXED = 8  # shards whose images are shuffled together
OPEN = 32  # files a process keeps open
AN_IMAGE = 100_000  # bytes, before a shard was looked into; reading one takes time in proportion to them
TRAIN, VAL = r"(^|[^a-z])train([^a-z]|$)", r"(^|[^a-z])val(idation)?([^a-z]|$)"
NAMES_OF_CLASSES = ("classes.txt", "classnames.txt")
SHAPE = (
    "It must hold train/*.tar and val/*.tar, or tar files with train and val in their names, of samples with an image "
    "(.jpg, .jpeg, .png, .webp) and a class (.cls, or label in .json)."
)


class ShardSplit(PictureSplit):
    """Images in tar files. ``order`` reads a few files at a time, in random order and mixed."""

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        found: Sequence[Shard],
        names: Sequence[str],
        kept: Any,
        preparation: Preparation,
        augment: Augment | None = None,
    ) -> None:
        labels, self._offsets, self._sizes = (
            np.concatenate([getattr(one, column) for one in found])[kept] for column in ("labels", "offsets", "sizes")
        )
        super().__init__(array("i", labels.tolist()), preparation, augment)
        self._shard = np.repeat(np.arange(len(found), dtype=np.int32), [len(one.labels) for one in found])[kept]
        self.files, self.paths = [root / file for file in files], Paths(root, [names[n] for n in kept.tolist()])
        self._open: OrderedDict[int, int] = OrderedDict()

    def order(self, seed: int, epoch: int) -> Tensor:
        """Shards in random order; the images of each ``MIXED`` of them shuffled together."""
        generator = torch.Generator().manual_seed(mix(seed, epoch))
        counts = torch.bincount(torch.from_numpy(self._shard).long(), minlength=len(self.files))
        starts = counts.cumsum(0) - counts
        shards = torch.randperm(len(self.files), generator=generator).tolist()
        parts = []
        for first in range(0, len(shards), MIXED):
            own = [torch.arange(int(starts[n]), int(starts[n] + counts[n])) for n in shards[first : first + MIXED]]
            together = torch.cat(own)
            parts.append(together[torch.randperm(len(together), generator=generator)])
        return torch.cat(parts)

    def image(self, index: int) -> Image:
        raw = os.pread(self._file(int(self._shard[index])), int(self._sizes[index]), int(self._offsets[index]))
        try:
            return read_picture(raw)
        except UnreadableError as error:
            raise DataError(
                f"load: {self.paths[index]} cannot be read: {error}. Restore it and go on, "
                "or name it in a file for --data.skip and begin anew."
            ) from error

    def _file(self, number: int) -> int:
        """An open file; reading at a place moves nothing, so processes that were forked may share it."""
        if number not in self._open:
            if len(self._open) >= OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[number] = os.open(self.files[number], os.O_RDONLY)
        self._open.move_to_end(number)
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}

    def __del__(self) -> None:
        for file in getattr(self, "_open", {}).values():
            os.close(file)


def shape(name: str) -> str:
    """What to fetch, and how the folder has to look."""
    return SHAPE


def shards(path: Path, options: DataOptions) -> ImageData:
    """A folder of tar files. Images that cannot be read are left out, each with its reason.

    Raises:
        DataError: there are none, one is damaged or compressed, or their classes are not what they should be.
    """
    sides = tar_files(path)
    level = level_of(options, sum((path / file).stat().st_size for side in sides for file in side) // AN_IMAGE)
    with quiet(), ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [list(pool.map(lambda file: shard(path / file, level), side)) for side in sides]
    names, reasons = _named(sides, found)
    skipped = dict.fromkeys(to_skip(options, path, (*names[0], *names[1], *reasons)), SKIPPED)
    kept = [np.array([n for n, name in enumerate(own) if name not in skipped], np.int64) for own in names]
    classes = _classes(path, options.name, [_labels(own)[k] for own, k in zip(found, kept, strict=True)])
    preparation, augment = MADE_FOR.preparation(options), MADE_FOR.augment(options)
    train, val = (
        ShardSplit(path, side, own, name, k, preparation, drawn)
        for side, own, name, k, drawn in zip(sides, found, names, kept, (augment, None), strict=True)
    )
    return ImageData(
        name=options.name if options.name == "imagenet-shards" else str(path),
        classes=classes,
        channels=3,
        size=preparation.size,
        train=train,
        val=val,
        preparation=preparation,
        backbone="resnet50",
        fingerprint=_fingerprint(train, val),
        skipped=tuple(f"{path / name}: {why}" for name, why in {**reasons, **skipped}.items()),
    )


def _named(sides: Sequence[Sequence[str]], found: Sequence[Sequence[Shard]]) -> tuple[list[list[str]], dict[str, str]]:
    """The images of each side as file/member, and why others are left out."""
    names: list[list[str]] = []
    reasons: dict[str, str] = {}
    for side, own in zip(sides, found, strict=True):
        names.append([f"{file}/{name}" for file, one in zip(side, own, strict=True) for name in one.members()])
        for file, one in zip(side, own, strict=True):
            reasons |= {f"{file}/{name}": why for name, why in one.reasons().items()}
    return names, reasons


def tar_files(path: Path) -> list[list[str]]:
    """The tar files of both sides, relative to ``path``, sorted."""
    if not path.is_dir():
        raise DataError(f"load: there is no folder {path}. {SHAPE}")
    every = sorted(file.relative_to(path).as_posix() for file in path.rglob("*.tar"))
    train, val = ([name for name in every if re.search(word, name)] for word in (TRAIN, VAL))
    if not train or not val or set(train) & set(val):
        packed = [file.name for kind in ("*.tgz", "*.tar.gz", "*.tar.zst") for file in path.rglob(kind)]
        told = f" Unpack {packed[0]} and the others first: images are read in any order." if packed else ""
        raise DataError(
            f"load: {path} holds {len(train)} tar files to train on and {len(val)} to validate with. {SHAPE}{told}"
        )
    return [train, val]


def _labels(found: Sequence[Shard]) -> Any:
    return np.concatenate([one.labels for one in found])


def _classes(path: Path, name: str, labels: Sequence[Any]) -> tuple[str, ...]:
    """Names from a file or, of ImageNet, from timm; else numbers."""
    for side, own in zip(("train", "val"), labels, strict=True):
        if not len(own):
            raise DataError(f"load: none of the {side} samples in {path} has an image and a class. {SHAPE}")
    least, most = min(int(own.min()) for own in labels), max(int(own.max()) for own in labels)
    given = next((path / file for file in NAMES_OF_CLASSES if (path / file).is_file()), None)
    if given is not None:
        classes = tuple(line.strip() for line in given.read_text(encoding="utf-8").splitlines() if line.strip())
    elif name == "imagenet-shards":
        classes = unique(imagenet_synsets(), imagenet_words())
    else:
        # As many as there are images at most: a label may be any number.
        classes = tuple(map(str, range(min(most + 1, sum(map(len, labels))))))
    if twice := [name for name, count in Counter(classes).items() if count > 1]:
        raise DataError(f"load: {given} names {twice[0]!r} twice. Give every class a name of its own.")
    if least < 0 or most >= len(classes) or len(classes) < 2:
        raise DataError(
            f"load: the labels in {path} go from {least} to {most}, for {len(classes)} classes. Number them from 0, "
            f"and name all in {NAMES_OF_CLASSES[0]}, one a line, where numbers are not enough."
        )
    return classes


def _fingerprint(*splits: ShardSplit) -> str:
    """Of names, labels and sizes."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(split.paths.packed)
        digest.update(np.array(split.labels, np.int64).tobytes())
        digest.update(split._sizes.tobytes())
    return f"shards-{digest.hexdigest()[:16]}"
