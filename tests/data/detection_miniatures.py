"""COCO on disk, tiny: the folders, names and JSON of the published files, with what the real ones have in them.

Categories with holes in their ids, polygons of one and of two parts, runs compressed and not, a crowd, images without
objects, boxes without extent, grey and palette images, images that a camera turned.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from foveal.data.detection.coco import DetectionSets, load_detection
from foveal.data.detection.options import DetectionData

CATEGORIES = [{"id": 1, "name": "person", "supercategory": "person"}, {"id": 18, "name": "dog"}]
CATEGORIES += [{"id": 90, "name": "toothbrush", "supercategory": "indoor"}]
SIZES = {"train": [(40, 60), (64, 48), (48, 48), (40, 56), (33, 47), (50, 70)], "val": [(40, 60), (64, 48), (51, 50)]}


def coco(root: Path, *, year: str = "2017") -> Path:
    """A folder as the unpacked archives leave it. Image ids are neither dense nor in order."""
    (root / "annotations").mkdir(parents=True)
    for side, sizes in SIZES.items():
        (root / f"{side}{year}").mkdir()
        images = [_image(root / f"{side}{year}", n, size) for n, size in enumerate(sizes)]
        told = {"info": {"year": 2017}, "licenses": [], "images": images, "categories": CATEGORIES}
        told["annotations"] = _objects(images, side)
        (root / "annotations" / f"instances_{side}{year}.json").write_text(json.dumps(told))
    return root


def edit(path: Path, change: Any) -> None:
    """Rewrite a JSON file after ``change`` has had its content."""
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


def load(path: Path, *, masks: bool = True, **options: Any) -> DetectionSets:
    """Both sides of such a folder."""
    return load_detection(DetectionData(**{"name": "coco", "path": str(path), **options}), masks=masks)


def annotations(path: Path, side: str = "train") -> Path:
    """The file of a side's objects."""
    return path / "annotations" / f"instances_{side}2017.json"


def _image(folder: Path, number: int, size: tuple[int, int]) -> dict[str, Any]:
    rows, columns = size
    name = f"{1000 - 7 * number:012d}.jpg"
    noise = np.random.default_rng(number).integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    exif = picture.getexif()
    if number == 1:
        picture = picture.convert("L")
    if number == 2:
        exif[0x0112] = 6  # a camera on its side; objects are marked on the pixels as they are stored
    picture.save(folder / name, "JPEG", quality=90, exif=exif)
    return {"id": 1000 - 7 * number, "file_name": name, "height": rows, "width": columns, "license": 1}


def _objects(images: list[dict[str, Any]], side: str) -> list[dict[str, Any]]:
    a, b, c, *more = (each["id"] for each in images)
    size_c = [images[2]["height"], images[2]["width"]]
    told = [
        _object(a, 1, [4, 5, 20, 10], [[4, 5, 24, 5, 24, 15, 4, 15]]),
        _object(b, 90, [10.5, 8.25, 20, 30.5], [[10.5, 8.25, 30.5, 8.25, 30.5, 20, 10.5, 20],
                                               [12, 25, 28, 25, 20, 38.75]]),
        _object(a, 18, [30, 10, 25, 22], [[30, 10, 55, 12, 50, 32, 33, 28]]),
        {**_object(b, 1, [0, 40, 48, 20], _runs((64, 48), 40, 60, 0, 48)), "iscrowd": 1},
        _object(c, 18, [5, 6, 20, 21], {"size": size_c, "counts": _squeezed(size_c, 6, 27, 5, 25)}),
    ]  # fmt: skip
    if side == "train":
        told += [
            _object(more[0], 1, [10, 10, 0, 12], [[10, 10, 10, 22, 10, 15]]),
            _object(more[0], 1, [100, 10, 20, 12], [[100, 10, 120, 10, 120, 22]]),
            _object(more[0], 90, [2, 2, 30, 30], [[2, 2, 32, 2, 32, 32, 2, 32]]),
            {**_object(more[1], 1, [5, 5, 20, 20], _runs((33, 47), 5, 25, 5, 25)), "iscrowd": 1},
        ]
    return [{**each, "id": 500 + 3 * n} for n, each in enumerate(told)]


def _object(image: int, category: int, box: list[float], shape: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3] * 0.9, "iscrowd": 0,
            "segmentation": shape}  # fmt: skip


def _runs(size: tuple[int, int], top: int, bottom: int, left: int, right: int) -> dict[str, Any]:
    """A rectangle as plain run lengths down the columns."""
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    flat = mask.ravel(order="F").tolist()
    counts, value = [0], False
    for pixel in flat:
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": list(size), "counts": counts}


def _squeezed(size: list[int], top: int, bottom: int, left: int, right: int) -> str:
    """The same compressed, by COCO's own code."""
    from pycocotools import mask

    drawn = np.zeros(size, np.uint8, order="F")
    drawn[top:bottom, left:right] = 1
    return mask.encode(drawn)["counts"].decode()
