"""Labelled images that are read when they are asked for: drawn for training, whole for validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foveal.data.picture import UnreadableError
from foveal.data.preparation import Normalisation
from foveal.data.samples import Samples, mix
from foveal.data.segmentation.augmentation import Draw
from foveal.data.segmentation.classes import RGB
from foveal.data.segmentation.labels import Labels
from foveal.data.segmentation.pairs import Pairs, read_pair
from foveal.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


class LabelledSplit(Samples):
    """Pairs on disk. With ``draw`` each is drawn from (seed, epoch, index), else whole and of its own size."""

    decodes = True

    def __init__(self, pairs: Pairs, normalisation: Normalisation, draw: Draw | None = None) -> None:
        self.images, self.labels, self.coding = pairs.images(), pairs.labels(), pairs.coding
        self.normalisation, self.draw = normalisation, draw

    def __len__(self) -> int:
        return len(self.images)

    def pair(self, index: int) -> tuple[Image, Labels]:
        """The image, RGB, and its classes, as they are stored."""
        image, labels = self.images[index], self.labels[index]
        try:
            return read_pair(image, labels, self.coding)
        except UnreadableError as error:
            raise DataError(
                f"load: {image} or its labels {labels} cannot be read: {error}. Restore both and go on, or name the "
                "image in a file for --data.skip and begin anew."
            ) from error

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """``(3, rows, columns)``, normalised, and 8-bit ``(rows, columns)``."""
        image, labels = self.pair(index)
        if self.draw is not None:
            return self.draw(image, labels, mix(self.seed, self.epoch, index, 2))
        return self.normalisation.of(image), torch.from_numpy(labels)

    def batch(self, indices: Sequence[int]) -> tuple[Any, Any]:
        """Both stacked where they are drawn; lists where every item has its own size."""
        items = [self[index] for index in indices]
        images, labels = [image for image, _ in items], [marked for _, marked in items]
        return (images, labels) if self.draw is None else (torch.stack(images), torch.stack(labels))


@dataclass(frozen=True)
class SegmentationSet:
    """A data set by name, split and described. ``colours`` are those that its classes are drawn in."""

    name: str
    classes: tuple[str, ...]
    colours: tuple[RGB, ...]
    train: LabelledSplit
    val: LabelledSplit
    fingerprint: str
    skipped: tuple[str, ...] = ()
