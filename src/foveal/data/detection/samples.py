"""Images with objects, read from disk by their place in a COCO annotation file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from foveal.data.detection.annotations import Annotations, Numbers
from foveal.data.detection.changes import Change, Target
from foveal.data.detection.rle import decode, from_segmentation
from foveal.data.listing import Files
from foveal.data.picture import UnreadableError, read_picture
from foveal.data.samples import Samples, mix
from foveal.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

Batch = tuple[list[Tensor], list[Target]]


class CocoSamples(Samples):
    """Some images of an annotation file.

    A batch is a list of images ``(3, rows, columns)``, 8 bits, of any sizes, and a list of as many targets: see
    ``Target``, and ``image``, the place in the annotation file. Validation has that alone.

    Args:
        annotations: of all images.
        files: of those that can be read; their labels are their places in the annotations.
        images: which files are meant.
        labels: category's id to class.
        masks: whether targets have masks.
        change: what training does; None for validation.
    """

    decodes = True

    def __init__(
        self,
        annotations: Annotations,
        files: Files,
        images: Numbers,
        labels: Mapping[int, int],
        *,
        masks: bool,
        change: Change | None = None,
    ) -> None:
        chosen = files.take(images)
        self.annotations, self.paths, self.places = annotations, chosen.paths(), chosen.labels
        self.labels, self.masks, self.change = dict(labels), masks, change

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def upright(self) -> Tensor:
        """Whether each image is higher than wide, ``(len(self),)`` bool."""
        rows, columns = self.annotations.sizes[self.places].T
        return torch.from_numpy(rows > columns)

    def batch(self, indices: Sequence[int]) -> Batch:
        images, targets = zip(*map(self.item, indices), strict=True)
        return list(images), list(targets)

    def item(self, index: int) -> tuple[Tensor, Target]:
        """An image and its target.

        Raises:
            DataError: the file is not what the annotations say.
        """
        place = int(self.places[index])
        image = self.image(index)
        told = {"image": torch.tensor(place)}
        if self.change is None:
            return image, told
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch, index))
        image, target = self.change(image, self.target(place), generator)
        return image, target | told

    def image(self, index: int) -> Tensor:
        """The image as it is, ``(3, rows, columns)``, 8 bits."""
        rows, columns = self.annotations.sizes[int(self.places[index])].tolist()
        picture = _of_size(self.paths[index], rows, columns, self.annotations.path)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()

    def target(self, place: int) -> Target:
        """The objects of an image that are for training."""
        told = self.annotations
        chosen = told.of(place)
        chosen = chosen[told.learned[chosen]]
        target = {
            "boxes": torch.from_numpy(told.corners(chosen, place)).float(),
            "labels": torch.tensor([self.labels[kind] for kind in told.kinds[chosen].tolist()], dtype=torch.int64),
        }
        if self.masks:
            rows, columns = told.sizes[place].tolist()
            masks = [self._mask(int(n), rows, columns) for n in chosen]
            target["masks"] = torch.from_numpy(np.array(masks, np.uint8).reshape(-1, rows, columns))
        return target

    def _mask(self, place: int, rows: int, columns: int) -> Numbers:
        return decode(from_segmentation(self.annotations.shapes[place], rows, columns))


def _of_size(path: Path, rows: int, columns: int, told: Path) -> Image:
    """A picture of the annotated size: its pixels as they are stored, which is how COCO's tools take them, or upright
    where only that fits."""
    try:
        picture = read_picture(path, upright=False)
        if picture.size == (rows, columns) != (columns, rows):
            picture = read_picture(path)
    except UnreadableError as error:
        raise DataError(f"load: {path} cannot be read: {error}. Replace it, or name it in --data.skip.") from error
    if picture.size != (columns, rows):
        raise DataError(
            f"load: {path} has {picture.height} rows and {picture.width} columns, {told} says {rows} and {columns}. "
            "Give the image that was annotated."
        )
    return picture
