"""What a data set is to the rest: two splits of labelled images and what a model must know of them.

Every mechanism of a comparison sees the same images: see ``foveal.data.samples``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset

from foveal.data.preparation import Preparation
from foveal.data.samples import Samples, mix

if TYPE_CHECKING:
    from PIL.Image import Image

Item = tuple[Tensor, int]


class Split(Samples, Dataset[Item], ABC):
    """Labelled images, normalised."""

    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def __getitem__(self, index: int) -> Item: ...

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The items of these indices together: images ``(n, channels, height, width)``, labels ``(n,)`` int64."""
        items = [self[index] for index in indices]
        return torch.stack([image for image, _ in items]), torch.tensor([label for _, label in items])

    @abstractmethod
    def picture(self, index: int) -> Tensor:
        """The image as a person would see it: ``(channels, height, width)`` in 0 to 1, as the model gets it."""


class TensorSplit(Split):
    """Images that fit in memory. Training shifts each by up to ``shift`` pixels; what comes in is background."""

    def __init__(self, images: Tensor, labels: Tensor, *, shift: int = 0) -> None:
        self.images, self.labels, self.shift = images, labels.tolist(), shift
        self._labels = labels.long()
        pad = torch.nn.functional.pad(images, (shift,) * 4) if shift else images
        height, width = images.shape[-2:]
        # A view: every window that a shift can give, without a copy.
        self._windows = normalised(pad).unfold(2, height, 1).unfold(3, width, 1)
        self._offsets = torch.full((len(images), 2), shift)

    def at(self, seed: int, epoch: int) -> None:
        super().at(seed, epoch)
        generator = torch.Generator().manual_seed(mix(seed, epoch, 1))
        self._offsets = torch.randint(0, 2 * self.shift + 1, (len(self), 2), generator=generator)

    def __getitem__(self, index: int) -> Item:
        top, left = self._offsets[index].tolist()
        return self._windows[index, :, top, left], self.labels[index]

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        top, left = self._offsets[chosen].unbind(1)
        return self._windows[chosen, :, top, left], self._labels[chosen]

    def picture(self, index: int) -> Tensor:
        return self.images[index]


def normalised(images: Tensor) -> Tensor:
    """0 to 1 becomes -1 to 1."""
    return images * 2 - 1


def plain(size: int, channels: int) -> Preparation:
    """The whole image at ``size`` pixels, from 0 to 1 made -1 to 1."""
    return Preparation(size, 1.0, "bilinear", (0.5,) * channels, (0.5,) * channels, channels)


@dataclass(frozen=True)
class ImageData:
    """A data set by name, split and described."""

    name: str
    classes: tuple[str, ...]
    channels: int
    size: int
    train: Split
    val: Split
    preparation: Preparation
    """What makes any image what the model takes, as validation images are made."""
    backbone: str
    """A backbone of a fitting size, for who names none."""
    fingerprint: str
    """Changes when the images do."""
    skipped: tuple[str, ...] = field(default=())
    """One line for each unreadable file that was left out: its path and why."""

    def prepare(self, image: Image) -> Tensor:
        """A new image as validation would have it: ``(channels, size, size)``, normalised."""
        return self.preparation(image)

    def summary(self) -> dict[str, object]:
        """Plain values for a record of a run."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "channels": self.channels,
            "size": self.size,
            "train": len(self.train),
            "val": len(self.val),
            "fingerprint": self.fingerprint,
            "skipped": list(self.skipped),
        }
