"""What training does to an image and its objects: mirror, resize at random, and crop a window."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.data.preparation import IMAGENET_MEAN

LEAST_SIDE = 1.0
"""Pixels: what a window leaves of an object that is narrower than this is not learned from."""
Target = dict[str, Tensor]
"""``boxes (n, 4)`` as left, top, right, bottom, float32; ``labels (n,)`` int64; where they are wanted
``masks (n, rows, columns)``, uint8."""


@dataclass(frozen=True)
class Change:
    """Nothing, by default.

    Attributes:
        flip: probability of mirroring.
        crop: side of the window; None takes the whole image.
        jitter: range of the size before the crop, times that at which the image just fits into the window.
    """

    flip: float = 0.0
    crop: int | None = None
    jitter: tuple[float, float] = (1.0, 1.0)

    def __call__(self, image: Tensor, target: Target, generator: torch.Generator) -> tuple[Tensor, Target]:
        """Another version of an image ``(3, rows, columns)``, 8 bits, drawn from the generator."""
        flip, size, down, right = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        if flip < self.flip:
            image, target = mirrored(image, target)
        if self.crop is not None:
            low, high = self.jitter
            image, target = resized(image, target, self.crop / max(image.shape[1:]) * (low + (high - low) * size))
            image, target = window(image, target, self.crop, down, right)
        return image, target


def mirrored(image: Tensor, target: Target) -> tuple[Tensor, Target]:
    """Left is right."""
    left, top, right, bottom = target["boxes"].unbind(1)
    width = image.shape[2]
    told = {**target, "boxes": torch.stack([width - right, top, width - left, bottom], 1)}
    if "masks" in target:
        told["masks"] = target["masks"].flip(2)
    return image.flip(2), told


def resized(image: Tensor, target: Target, factor: float) -> tuple[Tensor, Target]:
    """Another size, of a pixel at least."""
    from torchvision.transforms.v2 import InterpolationMode, functional

    rows, columns = image.shape[1:]
    size = [max(1, round(rows * factor)), max(1, round(columns * factor))]
    boxes = target["boxes"] * torch.tensor([size[1] / columns, size[0] / rows] * 2)
    told = {**target, "boxes": boxes}
    if "masks" in target:
        told["masks"] = functional.resize(target["masks"], size, InterpolationMode.NEAREST_EXACT)
    return functional.resize(image, size, antialias=True), told


def window(image: Tensor, target: Target, side: int, down: float, right: float) -> tuple[Tensor, Target]:
    """A square of the image, at shares ``down`` and ``right`` of where it can lie, and ImageNet's mean beyond the edge;
    objects of which next to nothing is left are gone."""
    rows, columns = image.shape[1:]
    top, left = (int(share * (max(length - side, 0) + 1)) for share, length in ((down, rows), (right, columns)))
    taken = image[:, top : top + side, left : left + side]
    fill = torch.tensor([round(255 * value) for value in IMAGENET_MEAN], dtype=torch.uint8)
    padded = fill[:, None, None].repeat(1, side, side)
    padded[:, : taken.shape[1], : taken.shape[2]] = taken
    most = torch.tensor([taken.shape[2], taken.shape[1]] * 2, dtype=torch.float32)
    boxes = (target["boxes"] - torch.tensor([left, top] * 2)).clamp(min=0).minimum(most)
    kept = (boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE).all(1)
    told = {**target, "boxes": boxes}
    if "masks" in target:
        masks = target["masks"].new_zeros(len(boxes), side, side)
        masks[:, : taken.shape[1], : taken.shape[2]] = target["masks"][:, top : top + side, left : left + side]
        kept &= masks.bool().flatten(1).any(1)
        told["masks"] = masks
    return padded, {name: values[kept] if name in OF_OBJECTS else values for name, values in told.items()}


OF_OBJECTS = ("boxes", "labels", "masks")
