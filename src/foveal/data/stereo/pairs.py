"""Pairs of images with the disparity of the left one, read from files as training and validation want them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveal.data.picture import UnreadableError, read_picture
from foveal.data.preparation import IMAGENET_MEAN, IMAGENET_STD
from foveal.data.samples import Samples, mix
from foveal.data.stereo.disparity import read_disparity
from foveal.data.stereo.layouts import PairFiles
from foveal.errors import DataError

Item = tuple[Tensor, Tensor, Tensor]
"""Left and right image ``(3, rows, columns)``, normalised, and disparity ``(rows, columns)``, NaN where unknown."""


class StereoPairs(Samples):
    """Pairs under a folder; with a ``crop`` each is a random window of that many rows and columns, else whole.

    ``batch`` gives tensors where there is a crop, and lists of tensors without one, since images differ in size.
    """

    decodes = True

    def __init__(self, root: Path, pairs: Sequence[PairFiles], crop: tuple[int, int] | None) -> None:
        self.root, self.pairs, self.crop = root, pairs, crop

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Item:
        pair = self.pairs[index]
        images = [read_image(self.root / name) for name in (pair.left, pair.right)]
        disparity = torch.from_numpy(read_disparity(self.root / pair.disparity))
        sizes = [tuple(x.shape[-2:]) for x in (*images, disparity)]
        if len(set(sizes)) > 1:
            raise DataError(
                f"load: the images and the disparity of {self.root / pair.left} have {_told(sizes)} pixels, wanted is "
                "one size. Unpack the archives anew."
            )
        if self.crop is not None:
            images[0], images[1], disparity = self._cropped([*images, disparity], index)
        return normalised(images[0]), normalised(images[1]), disparity

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, ...] | tuple[list[Tensor], ...]:
        left, right, disparity = map(list, zip(*(self[index] for index in indices), strict=True))
        if self.crop is None:
            return left, right, disparity
        return torch.stack(left), torch.stack(right), torch.stack(disparity)

    def _cropped(self, maps: list[Tensor], index: int) -> list[Tensor]:
        assert self.crop is not None
        (rows, columns), (height, width) = maps[0].shape[-2:], self.crop
        if rows < height or columns < width:
            raise DataError(
                f"load: {self.root / self.pairs[index].left} has {rows} x {columns} pixels, the window of training "
                f"{height} x {width}. Use a smaller --data.crop."
            )
        random = torch.Generator().manual_seed(mix(self.seed, self.epoch, index))
        top = int(torch.randint(rows - height + 1, (), generator=random))
        left = int(torch.randint(columns - width + 1, (), generator=random))
        return [x[..., top : top + height, left : left + width] for x in maps]


def read_image(path: Path) -> Tensor:
    """``(3, rows, columns)`` bytes of a file of any mode.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return as_tensor(read_picture(path))
    except UnreadableError as error:
        raise DataError(f"load: {path} cannot be read: {error}. Restore it, or name it in --data.skip.") from error


def as_tensor(image: Any) -> Tensor:
    """An RGB image as bytes ``(3, rows, columns)``."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def normalised(image: Tensor) -> Tensor:
    """Bytes to floats, less ImageNet's mean, over its deviation."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (image.float() / 255 - mean) / std


def _told(sizes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(" x ".join(map(str, size)) for size in sizes)
