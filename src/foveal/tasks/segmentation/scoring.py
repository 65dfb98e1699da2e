"""Scores of an image of any size: whole or by windows, over scales and mirrored, averaged.

Each image goes through the network alone, so that its scores do not depend on what it is batched with. It is padded on
the right and below with the mean colour until its sides are the training crop's plus a multiple of the output stride:
there the network's map lies on the image as it did in training. What was padded is cut off the scores.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.errors import OptionError
from foveal.tasks.segmentation.recipe import SegmentationEvaluation

Size = tuple[int, int]
Network = Callable[[Tensor], Tensor]


def scores(network: Network, image: Tensor, options: SegmentationEvaluation, *, crop: Size, stride: int) -> Tensor:
    """Probabilities, or logits where these are averaged, ``(classes, rows, columns)``, float32.

    Args:
        network: images ``(1, channels, rows, columns)`` to logits ``(1, classes, rows, columns)``, in evaluation.
        image: ``(channels, rows, columns)``, normalised.
        options: scales, flip, window and what is averaged.
        crop: rows and columns that the network was trained on.
        stride: the network's output stride.
    """
    size = (image.shape[1], image.shape[2])
    total: Tensor | None = None
    for scale in options.scales:
        scaled = resized(image[None], (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))
        for flip in (False, True) if options.flip else (False,):
            told = _windows(network, scaled.flip(-1) if flip else scaled, options, crop, stride)
            told = resized(told.flip(-1) if flip else told, size)
            total = told if total is None else total.add_(told)
    assert total is not None
    return total.div_(len(options.scales) * (1 + options.flip))[0]


def _windows(network: Network, image: Tensor, options: SegmentationEvaluation, crop: Size, stride: int) -> Tensor:
    """The scores of one scaled image: of the whole, or the mean over the windows that see a pixel."""
    size = (image.shape[2], image.shape[3])
    window = options.window
    if window is None or (size[0] <= window[0] and size[1] <= window[1]):
        return _once(network, image, options, crop, stride)
    rows, columns = (starts(side, long, options.stride) for side, long in zip(size, window, strict=True))
    total, seen = image.new_zeros(()), image.new_zeros(1, 1, *size)
    for top, left in product(rows, columns):
        part = (..., slice(top, top + window[0]), slice(left, left + window[1]))
        told = _once(network, image[part], options, crop, stride)
        if total.dim() == 0:
            total = told.new_zeros(1, told.shape[1], *size)
        total[part] += told
        seen[part] += 1
    return total / seen


def starts(side: int, window: int, share: float) -> list[int]:
    """Where windows begin along an axis: the last one ends where the image does."""
    if side <= window:
        return [0]
    step = max(1, int(window * share))
    count = ceil((side - window) / step) + 1
    return [min(n * step, side - window) for n in range(count)]


def _once(network: Network, image: Tensor, options: SegmentationEvaluation, crop: Size, stride: int) -> Tensor:
    rows, columns = image.shape[2:]
    below, right = ((long - side) % stride for side, long in zip((rows, columns), crop, strict=True))
    logits = network(F.pad(image, (0, right, 0, below)))[..., :rows, :columns].float()
    return logits.softmax(1) if options.average == "probabilities" else logits


def resized(maps: Tensor, size: Size) -> Tensor:
    """By linear interpolation between the middles of pixels, wider where maps shrink; as they are at their own size."""
    if maps.shape[2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False, antialias=True)


def check(options: SegmentationEvaluation) -> None:
    """Raise OptionError for what is out of range."""
    name = "train: --evaluation."
    if not options.scales or not all(0 < scale <= 10 for scale in options.scales):
        raise OptionError(f"{name}scales must be above 0 and at most 10, got {options.scales}. Use 1, say.")
    if options.window is not None and min(options.window) < 1:
        raise OptionError(f"{name}window must be rows and columns of at least 1, got {options.window}.")
    if not 0 < options.stride <= 1:
        raise OptionError(f"{name}stride must be above 0 and at most 1, got {options.stride}. Use 0.667, say.")


@torch.no_grad()
def answer(network: Network, image: Tensor, options: SegmentationEvaluation, *, crop: Size, stride: int) -> Tensor:
    """The class of every pixel, int64 ``(rows, columns)``; of equal scores the first class's."""
    return scores(network, image, options, crop=crop, stride=stride).argmax(0)
