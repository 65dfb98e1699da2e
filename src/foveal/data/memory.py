"""Splits whose pictures lie in memory, 8 bits a value, and are normalised when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foveal.data.augmentation import Augment
from foveal.data.defaults import Defaults
from foveal.data.images import ImageData, Item, Split, TensorSplit
from foveal.data.options import Augmentation, DataOptions
from foveal.data.pictures import PictureSplit
from foveal.data.preparation import Preparation
from foveal.data.samples import mix

if TYPE_CHECKING:
    from PIL.Image import Image


class MemorySplit(PictureSplit):
    """Pictures of one size in memory, 8-bit ``(n, channels, height, width)``.

    Where nothing but windows of the padded picture and flips are drawn, a batch is taken at once.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, preparation: Preparation, augment: Augment | None = None
    ) -> None:
        super().__init__(labels.tolist(), preparation, augment)
        self.images, self._labels = images, labels.long()
        padding = self._padding()
        self.decodes = padding is None
        if padding is not None:
            padded = torch.nn.functional.pad(images, (padding,) * 4)
            height, width = images.shape[-2:]
            self._windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view of every window
            self._offsets = torch.full((len(images), 2), padding)
            self._flipped = torch.zeros(len(images), dtype=torch.bool)

    def _padding(self) -> int | None:
        """Pixels of padding, or None where pictures have to be resized or drawn one by one."""
        fits = self.images.shape[-2:] == (self.preparation.size,) * 2 and self.preparation.crop_share == 1
        if not fits or self.augment is None:
            return 0 if fits else None
        options = self.augment.options
        single = options.crop == "resized" or options.policy or options.color_jitter or options.erasing
        return None if single else options.padding if options.crop == "padded" else 0

    def at(self, seed: int, epoch: int) -> None:
        super().at(seed, epoch)
        if self.decodes or self.augment is None:
            return
        generator = torch.Generator().manual_seed(mix(seed, epoch, 1))
        windows = self._windows.shape[2]
        self._offsets = torch.randint(0, windows, (len(self), 2), generator=generator)
        self._flipped = torch.rand(len(self), generator=generator) < self.augment.options.flip

    def image(self, index: int) -> Image:
        from torchvision.transforms.v2 import functional

        image: Image = functional.to_pil_image(self.images[index])
        return image

    def __getitem__(self, index: int) -> Item:
        if self.decodes:
            return super().__getitem__(index)
        images, labels = self.batch([index])
        return images[0], int(labels[0])

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        if self.decodes:
            return super().batch(indices)
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        top, left = self._offsets[chosen].unbind(1)
        images = self._windows[chosen, :, top, left]
        images = torch.where(self._flipped[chosen, None, None, None], images.flip(-1), images)
        return self.preparation.normalised(images.float().div_(255)), self._labels[chosen]


def redrawn(data: ImageData, options: DataOptions, own: Augmentation) -> ImageData:
    """Data that is in memory with the preparation and augmentation of ``options``.

    Args:
        data: made of TensorSplits of square images.
        options: its size is the one that the images get; the data's own where left out.
        own: crop and flip that the data set is made for.
    """
    centre = (0.5,) * data.channels
    defaults = Defaults(data.size, 1.0, own, mean=centre, std=centre)
    preparation, augment = defaults.preparation(options), defaults.augment(options)
    splits = [
        MemorySplit(_eight_bits(split), torch.tensor(split.labels), preparation, drawn)
        for split, drawn in ((data.train, augment), (data.val, None))
    ]
    return replace(data, size=preparation.size, train=splits[0], val=splits[1], preparation=preparation)


def _eight_bits(split: Split) -> Tensor:
    if not isinstance(split, TensorSplit):
        raise TypeError(f"redrawn: TensorSplits are wanted, got {type(split).__name__}")
    return (split.images * 255).round().to(torch.uint8)
