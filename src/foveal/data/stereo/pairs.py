"""Pairs of images with the disparity of the left one, read from files as training and validation want them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from foveal.data.picture import UnreadableError, read_picture
from foveal.data.preparation import Normalisation, as_bytes
from foveal.data.samples import Samples, mix
from foveal.data.stereo.disparity import read_disparity
from foveal.data.stereo.layouts import PairFiles
from foveal.errors import DataError

NORMALISATION = Normalisation()
"""ImageNet's, as PSMNet's code has it."""
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
        left, right = (NORMALISATION(image / 255) for image in images)
        return left, right, disparity

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
        return as_bytes(read_picture(path))
    except UnreadableError as error:
        raise DataError(f"load: {path} cannot be read: {error}. Restore it, or name it in --data.skip.") from error


def _told(sizes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(" x ".join(map(str, size)) for size in sizes)
