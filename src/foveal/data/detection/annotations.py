"""A COCO annotation file in compact columns: images, categories and objects, checked.

A file of COCO's training images has 860,000 objects. As Python objects they would be copied, page by page, into every
worker process that counts references to them; here they are arrays, and one piece of text for the shapes.
"""

from __future__ import annotations

import gc
import hashlib
import json
import marshal
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from foveal.errors import DataError

Numbers = npt.NDArray[Any]
FORM = (
    "It has to be COCO's: {'images': [{'id', 'file_name', 'height', 'width'}], 'categories': [{'id', 'name'}], "
    "'annotations': [{'id', 'image_id', 'category_id', 'bbox': [x, y, width, height], 'area', 'iscrowd', "
    "'segmentation'}]}."
)


class Values(Sequence[Any]):
    """Many plain values in one piece of memory. It stays within the process, so it may be ``marshal``, which is ten
    times as fast as JSON."""

    def __init__(self, values: Iterable[Any]) -> None:
        packed = [marshal.dumps(value) for value in values]
        self._ends = np.cumsum([0, *map(len, packed)])
        self._packed = b"".join(packed)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return marshal.loads(self._packed[self._ends[index] : self._ends[index + 1]])


@dataclass
class Annotations:
    """What a file says. ``n`` images in its order, ``m`` objects in the order of their images.

    Attributes:
        path: the file.
        digest: of its bytes.
        categories: id to name, by rising id.
        ids: of the images, ``(n,)``.
        names: of their files.
        sizes: rows and columns, ``(n, 2)``.
        starts: the objects of image i are ``starts[i]`` to ``starts[i + 1] - 1``, ``(n + 1,)``.
        objects: their ids, ``(m,)``.
        kinds: their categories' ids, ``(m,)``.
        boxes: x, y, width, height in pixels as they stand in the file, ``(m, 4)``.
        areas: of their masks, ``(m,)``.
        crowds: whether each is a crowd, ``(m,)``.
        shapes: their segmentations as they stand in the file; None where there is none.
        learned: which objects are for training: no crowds, and none without extent; all until someone says.
    """

    path: Path
    digest: str
    categories: dict[int, str]
    ids: Numbers
    names: Values
    sizes: Numbers
    starts: Numbers
    objects: Numbers
    kinds: Numbers
    boxes: Numbers
    areas: Numbers
    crowds: Numbers
    shapes: Values
    learned: Numbers = field(init=False)

    def __post_init__(self) -> None:
        self.learned = np.ones(len(self.objects), bool)

    @property
    def owners(self) -> Numbers:
        """The place of each object's image, ``(m,)``."""
        return np.repeat(np.arange(len(self.ids)), np.diff(self.starts))

    def of(self, image: int) -> Numbers:
        """The places of an image's objects."""
        return np.arange(self.starts[image], self.starts[image + 1])

    def corners(self, places: Numbers, image: int) -> Numbers:
        """Boxes as left, top, right, bottom within the image, ``(k, 4)`` float64."""
        rows, columns = self.sizes[image]
        left, top, width, height = self.boxes[places].T
        sides = [left, top, left + width, top + height]
        return np.stack([np.clip(side, 0, most) for side, most in zip(sides, (columns, rows) * 2, strict=True)], 1)

    def truth(self, images: Sequence[int], *, shapes: bool) -> dict[str, Any]:
        """The file again for some of its images, as the evaluation of COCO takes it."""
        return {
            "info": {},
            "images": [
                {"id": int(self.ids[n]), "height": int(self.sizes[n, 0]), "width": int(self.sizes[n, 1])}
                for n in images
            ],
            "categories": [{"id": number, "name": name} for number, name in self.categories.items()],
            "annotations": [record for n in images for record in self._truths(n, shapes)],
        }

    def _truths(self, image: int, shapes: bool) -> Iterator[dict[str, Any]]:
        for place in self.of(image).tolist():
            shape = {"segmentation": self.shapes[place]} if shapes else {}
            yield {
                "id": int(self.objects[place]),
                "image_id": int(self.ids[image]),
                "category_id": int(self.kinds[place]),
                "bbox": self.boxes[place].tolist(),
                "area": float(self.areas[place]),
                "iscrowd": int(self.crowds[place]),
                **shape,
            }


def read_annotations(path: Path) -> Annotations:
    """Read a file.

    Raises:
        DataError: it is not there, damaged, or not in COCO's format; says at which entry.
    """
    with _uncollected():
        told, digest = _json(path)
        return _Reading(path).read(told, digest)


def _json(path: Path) -> tuple[Any, str]:
    try:
        content = path.read_bytes()
        told = json.loads(content)
    except FileNotFoundError as error:
        raise DataError(f"load: there is no file {path}. {FORM}") from error
    except OSError as error:
        raise DataError(f"load: {path} cannot be read: {error.strerror}. Make it readable.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"load: {path} is no whole JSON: {error}. Fetch or write it anew.") from error
    return told, hashlib.sha256(content).hexdigest()[:16]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for cycles, which takes ten times as long as reading millions of small lists does."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


class _Reading:
    """Takes the entries of a file apart, and says which one is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, told: Any, digest: str) -> Annotations:
        images, categories, objects = (self._list(told, part) for part in ("images", "categories", "annotations"))
        kinds = {self._number(each, "id", "category"): str(each.get("name", each["id"])) for each in categories}
        if not kinds or len(kinds) < len(categories):
            raise self._wrong("categories", "there are none" if not kinds else "an id is there twice")
        places = self._places(images)
        objects = self._sorted(objects, places, kinds)
        owners = [places[each["image_id"]] for each in objects]
        starts = np.searchsorted(np.array(owners, np.int64), np.arange(len(images) + 1))
        boxes = np.array([self._box(each) for each in objects], np.float64).reshape(-1, 4)
        return Annotations(
            path=self.path,
            digest=digest,
            categories=dict(sorted(kinds.items())),
            ids=np.array(list(places), np.int64),
            names=Values(each["file_name"] for each in images),
            sizes=np.array([self._size(each) for each in images], np.int64).reshape(-1, 2),
            starts=starts,
            objects=np.array([self._number(each, "id", "annotation") for each in objects], np.int64),
            kinds=np.array([each["category_id"] for each in objects], np.int64),
            boxes=boxes,
            areas=np.array([self._area(each) for each in objects], np.float64),
            crowds=np.array([self._crowd(each) for each in objects], bool),
            shapes=Values(each.get("segmentation") or None for each in objects),
        )

    def _list(self, told: Any, part: str) -> list[dict[str, Any]]:
        found = told.get(part) if isinstance(told, dict) else None
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise self._wrong(part, "they are missing" if found is None else "they are no list of entries")
        return found

    def _places(self, images: list[dict[str, Any]]) -> dict[int, int]:
        places: dict[int, int] = {}
        for place, each in enumerate(images):
            number = self._number(each, "id", "image")
            if number in places:
                raise self._wrong(f"image {number}", "its id is there twice")
            if not isinstance(each.get("file_name"), str) or not each["file_name"]:
                raise self._wrong(f"image {number}", "it has no file_name")
            places[number] = place
        if not places:
            raise self._wrong("images", "there are none")
        return places

    def _sorted(
        self, objects: list[dict[str, Any]], places: dict[int, int], kinds: dict[int, str]
    ) -> list[dict[str, Any]]:
        for each in objects:
            for key, known in (("image_id", places), ("category_id", kinds)):
                if not isinstance(each.get(key), int) or each[key] not in known:
                    raise self._wrong(f"annotation {each.get('id')}", f"its {key} {each.get(key)} is not in the file")
        return sorted(objects, key=lambda each: places[each["image_id"]])

    def _number(self, entry: dict[str, Any], key: str, what: str) -> int:
        value = entry.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
            raise self._wrong(what, f"its {key} must be a whole number of 64 bits, got {value!r:.80}")
        return value

    def _size(self, image: dict[str, Any]) -> tuple[int, int]:
        rows, columns = (self._number(image, key, f"image {image['id']}") for key in ("height", "width"))
        if rows < 1 or columns < 1:
            raise self._wrong(f"image {image['id']}", f"it has {rows} rows and {columns} columns")
        return rows, columns

    def _box(self, entry: dict[str, Any]) -> list[float]:
        box = entry.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(_finite(value) for value in box):
            raise self._wrong(f"annotation {entry.get('id')}", f"its bbox must be four numbers, got {box!r:.80}")
        return box

    def _area(self, entry: dict[str, Any]) -> float:
        area = entry.get("area", entry["bbox"][2] * entry["bbox"][3])
        if not _finite(area):
            raise self._wrong(f"annotation {entry.get('id')}", f"its area must be a number, got {area!r}")
        return float(area)

    def _crowd(self, entry: dict[str, Any]) -> bool:
        crowd = entry.get("iscrowd") or 0
        if crowd not in (0, 1):
            raise self._wrong(f"annotation {entry.get('id')}", f"its iscrowd must be 0 or 1, got {crowd!r:.80}")
        return bool(crowd)

    def _wrong(self, where: str, why: str) -> DataError:
        return DataError(f"load: {self.path}, {where}: {why}. {FORM}")


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
