"""Images and the files of their labels, as the readers of the layouts find them; looked at before training."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from foveal.data.checks import EMPTY, REMEMBERED_FROM, SKIPPED, Memory, to_skip
from foveal.data.listing import Entry, Paths, images_under
from foveal.data.picture import ORIENTATION, UnreadableError, guarded, quiet, read_picture
from foveal.data.segmentation.labels import Coding, Labels, read_labels
from foveal.data.segmentation.options import SegmentationData
from foveal.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

Reasons = dict[str, str]
LOSSY = {".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class Pair:
    """An image and its labels: name relative to the root, size in bytes and time of each."""

    image: Entry
    labels: Entry


@dataclass(frozen=True)
class Pairs:
    """Pairs under one root, with what the values of the labels stand for."""

    root: Path
    pairs: Sequence[Pair]
    coding: Coding

    def __len__(self) -> int:
        return len(self.pairs)

    def images(self) -> Paths:
        return Paths(self.root, (pair.image[0] for pair in self.pairs))

    def labels(self) -> Paths:
        return Paths(self.root, (pair.labels[0] for pair in self.pairs))


def by_stem(root: Path, folder: str, wanted: str) -> dict[str, Entry]:
    """Files of images under a folder, by their path below it without the ending.

    Raises:
        DataError: there is no such folder, or two files differ in their ending alone.
    """
    if not (root / folder).is_dir():
        raise DataError(f"load: there is no folder {root / folder}. {wanted}")
    found: dict[str, Entry] = {}
    for entry in images_under(root, folder):
        below = PurePosixPath(entry[0]).relative_to(folder)
        stem = str(below.with_suffix(""))
        if stem in found:
            raise DataError(f"load: {root / entry[0]} and {found[stem][0]} have one name. Remove one of them.")
        found[stem] = entry
    return found


def matched(images: Mapping[str, Entry], labels: Mapping[str, Entry], names: Iterable[str], where: str) -> list[Pair]:
    """The pairs of these names, in their order.

    Raises:
        DataError: one of them has no image or no labels.
    """
    pairs = []
    for name in names:
        for what, files in (("image", images), ("labels", labels)):
            if name not in files:
                raise DataError(f"load: {where} has no {what} for {name}. Add the file, or take the name out.")
        pairs.append(Pair(images[name], labels[name]))
    if not pairs:
        raise DataError(f"load: {where} names no images. Give a list or folder that does.")
    return pairs


def readable(sides: Sequence[Pairs], options: SegmentationData) -> tuple[list[Pairs], Reasons]:
    """The pairs without those that cannot be read or are to be left out, and why each of these is missing.

    Raises:
        DataError: an image and its labels differ in size, a label stands for nothing (``verify: whole``), ``skip``
            names what is no image, or nothing is left of a side.
    """
    root = sides[0].root
    skipped = to_skip(options, root, (pair.image[0] for side in sides for pair in side.pairs))  # type: ignore[arg-type]
    reasons: Reasons = {}
    for side in sides:
        for pair in side.pairs:
            if empty := next((entry[0] for entry in (pair.image, pair.labels) if entry[1] == 0), None):
                reasons[pair.image[0]] = EMPTY if empty == pair.image[0] else f"{empty}: {EMPTY}"
    reasons |= dict.fromkeys(skipped, SKIPPED)
    if options.verify != "sizes":
        for side in sides:
            reasons |= _looked_at(side, reasons, whole=options.verify == "whole")
    kept = [
        Pairs(side.root, [pair for pair in side.pairs if pair.image[0] not in reasons], side.coding) for side in sides
    ]
    for side, before in zip(kept, sides, strict=True):
        if not len(side):
            first = before.pairs[0].image[0]
            raise DataError(
                f"load: none of {len(before)} images in {root} can be used, {first} not since {reasons[first]}. Give "
                "whole files."
            )
    return kept, reasons


def _looked_at(side: Pairs, known: Reasons, *, whole: bool) -> Reasons:
    """What reading the files tells; asked again only where any of them has changed since."""
    chosen = [pair for pair in side.pairs if pair.image[0] not in known]
    if len(chosen) < REMEMBERED_FROM:
        return _look(side, chosen, whole=whole)
    memory = Memory(f"labelled images of {side.root.resolve()}, {side.coding.told}")
    state = hashlib.sha256(repr(chosen).encode(errors="surrogateescape")).hexdigest()[:32]
    part = f"{len(chosen)} from {chosen[0].image[0]}"
    reasons: Reasons | None = memory.get(part, state, whole=whole)
    if reasons is None:
        reasons = _look(side, chosen, whole=whole)
        memory.put(part, state, reasons, whole=whole)
        memory.keep({part, *memory.parts})
    return reasons


def _look(side: Pairs, chosen: Sequence[Pair], *, whole: bool) -> Reasons:
    def reason(pair: Pair) -> str | None:
        paths = side.root / pair.image[0], side.root / pair.labels[0]
        at = paths[0]
        try:
            sizes = [guarded(at := path, _sizes) for path in paths]
            check_sizes(paths, sizes[0], sizes[1][0])
            if whole:
                read_pair(at := paths[0], paths[1], side.coding)
        except UnreadableError as error:
            return str(error) if at == paths[0] else f"{pair.labels[0]}: {error}"
        return None

    with quiet(), ThreadPoolExecutor(os.cpu_count()) as pool:
        told = list(pool.map(reason, chosen))
    return {pair.image[0]: why for pair, why in zip(chosen, told, strict=True) if why is not None}


def _sizes(image: Image) -> list[tuple[int, int]]:
    """Columns and rows as stored, and as the camera was held."""
    turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    return [image.size, image.size[::-1] if turned else image.size]


def check_sizes(paths: tuple[Path, Path], image: Sequence[tuple[int, int]], labels: tuple[int, int]) -> None:
    """Raise where labels have neither of the sizes of an image."""
    if labels not in image:
        (wide, high), (columns, rows) = image[0], labels
        raise DataError(
            f"load: {paths[0]} has {wide}x{high} pixels, its labels {paths[1]} have {columns}x{rows}. Give each image "
            "labels of its own size."
        )


def read_pair(image: Path, labels: Path, coding: Coding) -> tuple[Image, Labels]:
    """An RGB image as it is stored, or upright where only that fits its labels, and these.

    Raises:
        UnreadableError: one of the files is no image.
        DataError: their sizes differ, or a label stands for nothing.
    """
    marked = read_labels(labels, coding)
    size = marked.shape[::-1]
    picture = read_picture(image, upright=False)
    if picture.size != size:
        picture = read_picture(image)
    check_sizes((image, labels), [picture.size], size)
    return picture, marked


def fingerprint(kind: str, sides: Sequence[Pairs], classes: Sequence[str]) -> str:
    """Of the names and sizes of all files, and the names of the classes."""
    digest = hashlib.sha256("\0".join(classes).encode())
    for side in sides:
        rows = (f"{entry[0]}\0{entry[1]}\n" for pair in side.pairs for entry in (pair.image, pair.labels))
        digest.update(("".join(rows) + "\n").encode(errors="surrogateescape"))
    return f"{kind}-{digest.hexdigest()[:16]}"
