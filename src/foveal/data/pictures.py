"""Splits of pictures that are prepared, or drawn for training, when they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from foveal.data.augmentation import Augment
from foveal.data.images import Item, Split
from foveal.data.preparation import Preparation
from foveal.data.samples import mix

if TYPE_CHECKING:
    from PIL.Image import Image


class PictureSplit(Split):
    """Pictures that ``image`` reads. With ``augment`` each is drawn from (seed, epoch, index), else prepared."""

    decodes = True

    def __init__(self, labels: Sequence[int], preparation: Preparation, augment: Augment | None = None) -> None:
        self.labels, self.preparation, self.augment = labels, preparation, augment

    @abstractmethod
    def image(self, index: int) -> Image:
        """The picture as it is stored, RGB."""

    def __getitem__(self, index: int) -> Item:
        image = self.image(index)
        if self.augment is None:
            return self.preparation(image), int(self.labels[index])
        return self.augment(image, mix(self.seed, self.epoch, index, 2)), int(self.labels[index])

    def picture(self, index: int) -> Tensor:
        return self.preparation.picture(self.image(index))
