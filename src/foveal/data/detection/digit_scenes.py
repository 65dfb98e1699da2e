"""The generated scenes on disk as COCO has its images: JPEGs, and a JSON file of objects for each side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from foveal.data.detection.rle import encode
from foveal.data.detection.scenes import CLASSES, COUNTS, Scene, Side, scene

VERSION = 1
CATEGORY_IDS = (1, 2, 3, 4, 6, 7, 8, 9, 11, 13)
"""With holes, as COCO's 80 categories have ids up to 90."""
QUALITY = 95


def write(folder: Path) -> None:
    """``train/``, ``val/`` and ``annotations/`` with both sides' ``instances_*.json``.

    Raises:
        DataError: faster-coco-eval is not installed.
    """
    (folder / "annotations").mkdir()
    for side, count in COUNTS.items():
        (folder / side).mkdir()
        told = _side(folder / side, side, count)
        (folder / "annotations" / f"instances_{side}.json").write_text(json.dumps(told), encoding="utf-8")


def _side(folder: Path, side: Side, count: int) -> dict[str, Any]:
    from PIL import Image

    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for index in range(count):
        made = scene(index, side)
        name, (rows, columns, _) = f"{index:06d}.jpg", made.image.shape
        Image.fromarray(made.image).save(folder / name, quality=QUALITY)
        images.append({"id": index + 1, "file_name": name, "height": rows, "width": columns})
        for told in _objects(made, index + 1):
            objects.append({"id": len(objects) + 1, **told})
    categories = [{"id": n, "name": name} for n, name in zip(CATEGORY_IDS, CLASSES, strict=True)]
    about = {"description": "digits of scikit-learn on its two sample photographs", "version": str(VERSION)}
    return {"info": about, "licenses": [], "images": images, "annotations": objects, "categories": categories}


def _objects(made: Scene, image: int) -> list[dict[str, Any]]:
    told = []
    for mask, label, crowd in zip(made.masks, made.labels.tolist(), made.crowd.tolist(), strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
        told.append(
            {
                "image_id": image,
                "category_id": CATEGORY_IDS[label],
                "bbox": [float(side) for side in box],
                "area": float(mask.sum()),
                "iscrowd": int(crowd),
                "segmentation": _runs(mask) if crowd else encode(mask),
            }
        )
    return told


def _runs(mask: Any) -> dict[str, Any]:
    """Run lengths down the columns as plain numbers, the first of what is outside: as COCO writes crowds."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff([0, *edges.tolist(), mask.size])
    kept = counts if counts[-1] else counts[:-1]
    return {"size": list(mask.shape), "counts": kept.tolist()}
