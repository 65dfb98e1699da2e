"""Two real digits on a board of three by three cells, a cell at least between them: are they of one class?

A window that sees one digit at a time cannot tell, whatever is done with the sum over all windows: each digit alone
says nothing. The answer needs something that reaches across the board, or windows wide enough to hold both digits.

Training pairs are drawn afresh for each epoch, since a network learns a few thousand fixed ones by heart. Digits fill
their cells at their own 8 pixels: with digits anywhere on a larger canvas small networks stay at chance for all that
two cores can train. The digits of the validation boards are the held-out digits, so no image is on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from foveal.data.digits import sources
from foveal.data.images import ImageData, Item, Split, TensorSplit, normalised, plain
from foveal.data.samples import mix
from foveal.errors import OptionError

SEED = 1797
TRAIN, VAL = 8000, 2000
CELLS = 3  # an axis
SIZE = 24
_CELLS = tuple(product(range(CELLS), repeat=2))


class PairSplit(Split):
    """``count`` boards, other ones for each (seed, epoch); every second one has two digits of one class.

    Args:
        images: the digits, ``(n, 1, d, d)`` in 0 to 1.
        classes: theirs, ``(n,)``.
        count: boards an epoch.
    """

    def __init__(self, images: Tensor, classes: Tensor, count: int) -> None:
        self._digits, self._classes = images, classes
        self._labels = torch.arange(count) % 2
        self.labels: Sequence[int] = self._labels.tolist()
        self.at(0, 0)

    def at(self, seed: int, epoch: int) -> None:
        super().at(seed, epoch)
        pairs, cells = drawn(self._classes, len(self), mix(SEED, seed, epoch))
        self.images = boards(self._digits, pairs, cells)

    def __getitem__(self, index: int) -> Item:
        return normalised(self.images[index]), self.labels[index]

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return normalised(self.images[chosen]), self._labels[chosen]

    def picture(self, index: int) -> Tensor:
        return self.images[index]


def digit_pairs(size: int = SIZE) -> ImageData:
    """Boards of ``size`` pixels: 8,000 new ones an epoch to train on, 2,000 fixed ones held out."""
    if size % CELLS or size < SIZE:
        raise OptionError(
            f"digit-pairs: size must be a multiple of {CELLS} and at least {SIZE}, got {size}. Use {SIZE}."
        )
    images, classes, held_out = sources()
    if size != SIZE:
        images = interpolate(images, size=(size // CELLS,) * 2, mode="bilinear", align_corners=False)
    pairs, cells = drawn(classes[held_out], VAL, SEED)
    return ImageData(
        name="digit-pairs",
        classes=("different", "same"),
        channels=1,
        size=size,
        train=PairSplit(images[~held_out], classes[~held_out], TRAIN),
        val=TensorSplit(boards(images[held_out], pairs, cells), torch.arange(VAL) % 2),
        preparation=plain(size, 1),
        backbone="foveal_resnet_mini_s2",
        fingerprint=f"digit-pairs-board-{SEED}-{TRAIN}-{VAL}",
    )


def drawn(classes: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Which two digits go where, on ``count`` boards. Every odd board has two digits of one class.

    Args:
        classes: of the digits to take, ``(n,)``.
        count: how many boards.
        seed: of the generator.

    Returns:
        ``pairs (count, 2)``, two different indices into ``classes``, and ``cells (count, 2, 2)``, row and column of
        each, two apart along an axis at least.
    """
    generator = torch.Generator().manual_seed(seed)
    same = torch.arange(count) % 2 == 1
    far = torch.tensor([(a, b) for a in _CELLS for b in _CELLS if max(abs(a[0] - b[0]), abs(a[1] - b[1])) >= 2])
    cells = far[torch.randint(len(far), (count,), generator=generator)]
    pairs = torch.zeros(count, 2, dtype=torch.int64)
    wrong = torch.ones(count, dtype=torch.bool)
    while left := int(wrong.sum()):
        pairs[wrong] = torch.randint(len(classes), (left, 2), generator=generator)
        one, other = pairs.unbind(1)
        wrong = (one == other) | ((classes[one] == classes[other]) != same)
    return pairs, cells


def boards(images: Tensor, pairs: Tensor, cells: Tensor) -> Tensor:
    """Two digits in their cells, zeros elsewhere: ``(count, 1, 3 * d, 3 * d)`` of digits ``(n, 1, d, d)``."""
    edge = images.shape[-1]
    board = torch.zeros(len(pairs), CELLS, CELLS, edge, edge)
    every = torch.arange(len(pairs))
    for side in (0, 1):
        row, column = cells[:, side].unbind(1)
        board[every, row, column] = images[pairs[:, side], 0]
    return board.permute(0, 1, 3, 2, 4).reshape(len(pairs), 1, CELLS * edge, CELLS * edge)
