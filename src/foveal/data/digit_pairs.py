"""Two real digits far apart on one canvas: are they of the same class?

A window of 3x3 sees one digit at a time, so the answer needs a mechanism with a long range or a deep enough network.
The digits of the validation canvases are the held-out digits, so no image is on both sides.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from foveal.data.digits import sources
from foveal.data.images import ImageData, TensorSplit, plain
from foveal.errors import OptionError

SEED = 1797
TRAIN, VAL = 4000, 1000


def digit_pairs(size: int) -> ImageData:
    """Canvases of ``size`` pixels with two digits of a quarter of it, their corners at least half the canvas apart."""
    if size % 4 or size < 32:
        raise OptionError(f"digit-pairs: size must be a multiple of 4 and at least 32, got {size}. Use 64.")
    images, labels, held_out = sources()
    images = interpolate(images, size=(size // 4, size // 4), mode="bilinear", align_corners=False)
    train, val = torch.nonzero(~held_out).flatten(), torch.nonzero(held_out).flatten()
    return ImageData(
        name="digit-pairs",
        classes=("different", "same"),
        channels=1,
        size=size,
        train=TensorSplit(*canvases(images, labels, train, TRAIN, size, SEED)[:2]),
        val=TensorSplit(*canvases(images, labels, val, VAL, size, SEED + 1)[:2]),
        preparation=plain(size, 1),
        backbone="foveal_resnet_mini_s2",
        fingerprint=f"digit-pairs-{SEED}-{TRAIN}-{VAL}",
    )


def canvases(
    images: Tensor, labels: Tensor, allowed: Tensor, count: int, size: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """``count`` canvases, half of them with two digits of one class.

    Args:
        images: the digits, ``(n, 1, d, d)``.
        labels: their classes, ``(n,)``.
        allowed: the indices that may be used.
        count: how many canvases.
        size: their height and width.
        seed: of the generator.

    Returns:
        ``canvas (count, 1, size, size)``, ``same (count,)`` 0 or 1, ``used (count, 2)`` the indices of the digits.
    """
    generator = torch.Generator().manual_seed(seed)
    same = torch.arange(count) % 2
    pairs = torch.stack([_pair(labels, allowed, bool(wanted), generator) for wanted in same])
    corners = torch.stack([_corners(size, images.shape[-1], generator) for _ in range(count)])
    canvas = torch.zeros(count, 1, size, size)
    edge = images.shape[-1]
    for n in range(count):
        for digit, (top, left) in zip(pairs[n], corners[n].tolist(), strict=True):
            canvas[n, :, top : top + edge, left : left + edge] = images[digit]
    return canvas, same, pairs


def _pair(labels: Tensor, allowed: Tensor, same: bool, generator: torch.Generator) -> Tensor:
    """Two different digits, of one class or of two."""
    while True:
        pair = allowed[torch.randint(len(allowed), (2,), generator=generator)]
        if pair[0] != pair[1] and bool(labels[pair[0]] == labels[pair[1]]) == same:
            return pair


def _corners(size: int, edge: int, generator: torch.Generator) -> Tensor:
    """Upper left corners of two digits, far apart."""
    while True:
        corners = torch.randint(size - edge + 1, (2, 2), generator=generator)
        if (corners[0] - corners[1]).float().norm() >= size / 2:
            return corners
