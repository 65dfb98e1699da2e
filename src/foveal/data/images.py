"""What a data set is to the rest: two splits of labelled images and what a model must know of them.

A split draws its augmentation from (seed, epoch, index) alone, so an epoch that was cut off goes on with the same
images whatever the number of workers, and every mechanism of a comparison sees the same ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import Dataset

Item = tuple[Tensor, int]


def mix(*numbers: int) -> int:
    """One seed from several numbers, different for different ones."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = ((state ^ (number + 0x7F4A7C15)) * 0xBF58476D1CE4E5B9) % 2**64
        state ^= state >> 31
    return state % 2**63


class Split(Dataset[Item], ABC):
    """Labelled images, normalised; ``at`` says which epoch of which seed the next ones are drawn for."""

    labels: Sequence[int]
    decodes = False
    """Whether reading an image is work enough for worker processes."""
    seed = 0
    epoch = 0

    def at(self, seed: int, epoch: int) -> None:
        """Draw from now on for this epoch."""
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def __getitem__(self, index: int) -> Item: ...

    @abstractmethod
    def picture(self, index: int) -> Tensor:
        """The image as a person would see it: ``(channels, height, width)`` in 0 to 1, as the model gets it."""


class TensorSplit(Split):
    """Images that fit in memory. Training shifts each by up to ``shift`` pixels; what comes in is background."""

    def __init__(self, images: Tensor, labels: Tensor, *, shift: int = 0) -> None:
        self.images, self.labels, self.shift = images, labels.tolist(), shift
        pad = torch.nn.functional.pad(images, (shift,) * 4) if shift else images
        self._padded = normalised(pad)
        self._offsets: Tensor | None = None

    def at(self, seed: int, epoch: int) -> None:
        super().at(seed, epoch)
        generator = torch.Generator().manual_seed(mix(seed, epoch, 1))
        self._offsets = torch.randint(0, 2 * self.shift + 1, (len(self), 2), generator=generator)

    def __getitem__(self, index: int) -> Item:
        height, width = self.images.shape[-2:]
        top, left = (self.shift, self.shift) if self._offsets is None else self._offsets[index].tolist()
        return self._padded[index, :, top : top + height, left : left + width], self.labels[index]

    def picture(self, index: int) -> Tensor:
        return self.images[index]


def normalised(images: Tensor) -> Tensor:
    """0 to 1 becomes -1 to 1."""
    return images * 2 - 1


@dataclass(frozen=True)
class ImageData:
    """A data set by name, split and described."""

    name: str
    classes: tuple[str, ...]
    channels: int
    size: int
    train: Split
    val: Split
    backbone: str
    """A backbone of a fitting size, for who names none."""
    fingerprint: str
    """Changes when the images do."""
    skipped: tuple[str, ...] = field(default=())
    """One line for each unreadable file that was left out: its path and why."""

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
