"""Sets with a class for every pixel, tiny, in their true formats: the names, modes and palettes of the published ones.

Images are noise around the colour of each pixel's class, so that a network can learn them; their sizes differ and are
odd. All functions return the folder that ``--data.path`` is given.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from foveal.data.segmentation import catalog
from foveal.data.segmentation.classes import CITYSCAPES_IDS, voc_colours
from foveal.data.segmentation.options import SegmentationData

SIZES = ((37, 51), (45, 33), (40, 40), (33, 61))
PALETTE = [value for colour in voc_colours(256) for value in colour]


def labels(seed: int, values: list[int], size: tuple[int, int] | None = None, border: int | None = None) -> np.ndarray:
    """``(rows, columns)``, 8 bits: bands and blocks of some of the values, and a frame of ``border`` around a block."""
    chance = np.random.default_rng(seed)
    rows, columns = size or SIZES[seed % len(SIZES)]
    marked = np.full((rows, columns), values[0], np.uint8)
    marked[rows // 2 :] = chance.choice(values)
    top, left = int(chance.integers(3, rows // 2)), int(chance.integers(3, columns // 2))
    place = (slice(top, top + rows // 3), slice(left, left + columns // 3))
    if border is not None:
        marked[top - 2 : top + rows // 3 + 2, left - 2 : left + columns // 3 + 2] = border
    marked[place] = chance.choice(values[1:])
    return marked


def photograph(marked: np.ndarray, seed: int) -> Image.Image:
    """Noise around a colour for each value."""
    colours = np.random.default_rng(7).integers(30, 226, (256, 3))
    noise = np.random.default_rng(seed).normal(0, 15, (*marked.shape, 3))
    return Image.fromarray(np.clip(colours[marked] + noise, 0, 255).astype(np.uint8))


def save(image: Image.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def palette_png(marked: np.ndarray, path: Path) -> Path:
    """As the development kit's: 8-bit indices with its palette."""
    image = Image.fromarray(marked).convert("P")
    image.putpalette(PALETTE)
    return save(image, path)


def grey_png(marked: np.ndarray, path: Path) -> Path:
    return save(Image.fromarray(marked), path)


def write_list(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def voc(root: Path, train: int = 4, val: int = 3, augmented: int = 2, classes: int = 21) -> Path:
    """VOCdevkit/VOC2012; ``augmented`` further images have labels in SegmentationClassAug alone, grey, without 255."""
    folder = root / "VOCdevkit" / "VOC2012"
    names = [f"2007_{number:06}" for number in range(train + val + augmented)]
    for seed, name in enumerate(names):
        extra = seed >= train + val
        marked = labels(seed, list(range(classes)), border=None if extra else 255)
        save(photograph(marked, seed), folder / "JPEGImages" / f"{name}.jpg")
        if extra:
            grey_png(marked, folder / "SegmentationClassAug" / f"{name}.png")
        else:
            palette_png(marked, folder / "SegmentationClass" / f"{name}.png")
    lists = folder / "ImageSets" / "Segmentation"
    write_list(lists / "train.txt", names[:train])
    write_list(lists / "val.txt", names[train : train + val])
    write_list(lists / "trainval.txt", names[: train + val])
    both = [f"/JPEGImages/{n}.jpg /SegmentationClassAug/{n}.png" for n in [*names[:train], *names[train + val :]]]
    write_list(lists / "trainaug.txt", both)
    return root


def ade20k(root: Path, train: int = 4, val: int = 2) -> Path:
    """ADEChallengeData2016: 0 does not count, classes from 1 on."""
    folder = root / "ADEChallengeData2016"
    for side, count in (("training", train), ("validation", val)):
        for number in range(count):
            marked, name = labels(number, [0, 1, 2, 13, 150]), f"ADE_{side[:5]}_{number + 1:08}"
            save(photograph(marked, number), folder / "images" / side / f"{name}.jpg")
            grey_png(marked, folder / "annotations" / side / f"{name}.png")
    return root


def cityscapes(root: Path, train: int = 4, val: int = 2, *, kind: str = "labelIds") -> Path:
    """leftImg8bit and gtFine by town; colours and instances are there as in the archive."""
    for side, town, count in (("train", "aachen", train), ("val", "lindau", val)):
        for number in range(count):
            name = f"{town}_{number:06}_000019"
            values = [0, *CITYSCAPES_IDS] if kind == "labelIds" else [255, *range(19)]
            marked = labels(number, values, size=(32, 64))
            save(photograph(marked, number), root / "leftImg8bit" / side / town / f"{name}_leftImg8bit.png")
            grey_png(marked, root / "gtFine" / side / town / f"{name}_gtFine_{kind}.png")
            wide = Image.fromarray(marked.astype(np.uint16) * 1000)
            save(wide, root / "gtFine" / side / town / f"{name}_gtFine_instanceIds.png")
    return root


def folder(
    root: Path, count: int = 6, names: tuple[str, ...] = ("road", "tree", "sky"), *, sides: bool = False
) -> Path:
    """images/, labels/ and classes.txt; with train/ and val/ in both where asked for."""
    write_list(root / "classes.txt", list(names))
    for number in range(count):
        marked, inner = labels(number, list(range(len(names)))), ""
        if sides:
            inner = "val" if number % 3 == 2 else "train"
        save(photograph(marked, number), root / "images" / inner / f"a{number}.jpg")
        grey_png(marked, root / "labels" / inner / f"a{number}.png")
    return root


def load(name, path, **options):
    """A set by name from a folder, with options of ``SegmentationData``."""
    return catalog.load(SegmentationData(name, str(path), **options))


def stored(path):
    """The values of an image file."""
    return np.asarray(Image.open(path))
