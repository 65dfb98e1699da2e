"""How much of a detector's batches is padding, in any order and with images that lie the same way together.

``python benchmarks/detector_padding.py`` prints a Markdown table of an epoch: pixels that a detector is given for each
pixel of its images, resized as torchvision does. ``--annotations`` takes the sizes from a file in COCO's format; else
they are made: 100,000 images, three of ten higher than wide, by the sides that cameras give.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from foveal.data.detection.annotations import read_annotations
from foveal.data.detection.grouping import grouped

COUNT, HIGHER = 100_000, 0.3
SIDES = {(480, 640): 0.45, (427, 640): 0.35, (360, 640): 0.07, (375, 500): 0.08, (640, 640): 0.05}
"""Rows and columns of images that lie, and their shares."""
DIVISIBLE = 32


def made() -> Tensor:
    """Sizes ``(n, 2)``, rows and columns."""
    chance = torch.Generator().manual_seed(0)
    kinds = torch.multinomial(torch.tensor([*SIDES.values()]), COUNT, replacement=True, generator=chance)
    sizes = torch.tensor([*SIDES])[kinds]
    return torch.where(torch.rand(COUNT, 1, generator=chance) < HIGHER, sizes.flip(1), sizes)


def resized(sizes: Tensor, least: int, most: int) -> Tensor:
    """What torchvision's transform makes of them."""
    short, long = sizes.amin(1, keepdim=True), sizes.amax(1, keepdim=True)
    return (sizes * torch.minimum(least / short, most / long)).floor()


def given(sizes: Tensor, order: Tensor, images: int) -> float:
    """Pixels of all batches in an order, for each pixel of their images."""
    batches = sizes[order[: len(order) // images * images]].view(-1, images, 2)
    canvas = (batches.amax(1) / DIVISIBLE).ceil() * DIVISIBLE
    return float(images * canvas.prod(1).sum() / batches.prod(2).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--batch-size", type=int, default=64, help="images of a step")
    parser.add_argument("--min-size", type=int, default=800)
    parser.add_argument("--max-size", type=int, default=1333)
    asked = parser.parse_args()
    sizes = made() if asked.annotations is None else torch.from_numpy(read_annotations(asked.annotations).sizes)
    order = torch.randperm(len(sizes), generator=torch.Generator().manual_seed(0))
    orders = (order, grouped(order, sizes[:, 0] > sizes[:, 1], asked.batch_size, 0))
    shown = resized(sizes.double(), asked.min_size, asked.max_size)
    print("| images a batch | any order | grouped | saved |\n|---:|---:|---:|---:|")
    for images in (n for n in (1, 2, 4, 8, 16, 32, 64) if asked.batch_size % n == 0):
        any_order, together = (given(shown, each, images) for each in orders)
        print(f"| {images} | {any_order:.3f} | {together:.3f} | {1 - together / any_order:.1%} |")


if __name__ == "__main__":
    main()
