"""What a trained network says of new images: the share of each class, and the classes drawn over the image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from foveal.data.preparation import Normalisation
from foveal.errors import DataError
from foveal.tasks.headroom import bytes_of, headroom
from foveal.tasks.kind import Asked, Drawn, Opened
from foveal.tasks.predict import answered
from foveal.tasks.segmentation.recipe import SegmentationEvaluation, SegmentationRecipe
from foveal.tasks.segmentation.scoring import resized, scores
from foveal.viz.label_maps import drawn, shares

MOST = 2**28
"""Scores of an image at most, 1 GiB; a larger image is answered smaller, and its record says so."""
SURE = 2**20
"""Pixels at the largest scale that are answered without asking how much memory is left."""
PROBES = 16, 32
"""Output strides along a side of the two images whose answers are measured to know what a larger one takes."""


def answers(opened: Opened, images: Iterable[str], asked: Asked) -> Iterator[Drawn]:
    """One answer a file, in order; a damaged one has its error.

    Raises:
        DataError: the network answers with what is no number.
    """
    network = _Network(opened)
    return answered(images, lambda name, picture: _answer(opened, network, name, picture, draw=asked.draw))


class _Network:
    """A run's network with what its recipe asks of it."""

    def __init__(self, opened: Opened) -> None:
        recipe = cast(SegmentationRecipe, opened.recipe)
        self.opened, self.options, self.crop = opened, recipe.evaluation, recipe.data.augmentation.crop
        self.stride, self.classes = int(cast(Any, opened.model).output_stride), len(opened.told["classes"])
        self.normalise = Normalisation(tuple(opened.told["mean"]), tuple(opened.told["std"]))

    def scores(self, image: Tensor, options: SegmentationEvaluation) -> Tensor:
        """``(classes, rows, columns)`` of a normalised image."""

        def network(images: Tensor) -> Tensor:
            told: Tensor = self.opened.model(images.contiguous(memory_format=torch.channels_last))
            return told

        with torch.no_grad(), self.opened.autocast():
            return scores(network, image, options, crop=self.crop, stride=self.stride)

    @cached_property
    def bytes_a_pixel(self) -> float:
        """What each further pixel of an image at its own scale takes, measured on two small ones."""
        few, many = (self._measured(length * self.stride) for length in PROBES)
        return (many - few) / ((PROBES[1] ** 2 - PROBES[0] ** 2) * self.stride**2)

    def _measured(self, side: int) -> int:
        plain = SegmentationEvaluation(average=self.options.average)
        image = torch.zeros(3, side, side, device=self.opened.device)
        self.scores(image, plain)  # what the first call alone takes is not measured
        return bytes_of(lambda: self.scores(image, plain), self.opened.device)

    def bytes_of(self, size: tuple[int, int]) -> float:
        """What an image of this size takes, about: the network on the largest that it sees, and sums of scores."""
        pixels = size[0] * size[1]
        scaled = pixels * max(self.options.scales) ** 2
        window = self.options.window
        seen, kept = (scaled, 0.0) if window is None else (min(scaled, window[0] * window[1]), scaled)
        return seen * self.bytes_a_pixel + 2 * 4 * self.classes * (pixels + kept)

    def affordable(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size itself, or one of its shape that there is memory for."""
        asked = size[0] * size[1] * self.classes
        if asked > MOST:
            size = _smaller(size, (MOST / asked) ** 0.5)
        if size[0] * size[1] * max(self.options.scales) ** 2 <= SURE:
            return size
        left = headroom(self.opened.device)
        while max(size) > 1 and (needed := self.bytes_of(size)) > left:
            # At least a little smaller, and not to nothing where windows take what they take at any size.
            size = _smaller(size, min(max(left / needed, 0.25) ** 0.5, 0.99))
        return size


def _smaller(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, int(size[0] * factor)), max(1, int(size[1] * factor))


def _answer(opened: Opened, network: _Network, name: str, picture: Any, *, draw: bool) -> Drawn:
    classes = list(opened.told["classes"])
    size = picture.shape[:2]
    asked = network.affordable(size)
    labels = _labels(network, picture, asked)
    record: dict[str, Any] = {
        "size": list(size),
        "shares": {kind: float(f"{share:.6g}") for kind, share in shares(labels, classes).items()},
    }
    if asked != size:
        record["answered_at"] = list(asked)
    colours = [tuple(colour) for colour in opened.told["colours"]]
    return Drawn(name, record, picture=drawn(picture, labels, classes, cast(Any, colours)) if draw else None)


def _labels(network: _Network, picture: Any, size: tuple[int, int]) -> Any:
    """The class of every pixel of the picture, 8 bits, from scores at ``size``."""
    from PIL import Image

    image = resized(network.normalise.of(picture)[None], size)[0].to(network.opened.device)
    told = network.scores(image, network.options)
    if not bool(told.isfinite().all()):
        source = network.opened.source
        raise DataError(f"predict: {source} answers with NaN, so its weights are no use. Train it again.")
    labels = told.argmax(0).to(torch.uint8).cpu().numpy()
    if labels.shape == picture.shape[:2]:
        return labels
    return np.asarray(Image.fromarray(labels).resize(picture.shape[1::-1], Image.Resampling.NEAREST))
