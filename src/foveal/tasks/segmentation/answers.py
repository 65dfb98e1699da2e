"""What a trained network says of new images: the share of each class, and the classes drawn over the image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from foveal.data.preparation import Normalisation
from foveal.errors import DataError
from foveal.tasks.kind import Asked, Drawn, Opened
from foveal.tasks.predict import answered
from foveal.tasks.segmentation.recipe import SegmentationRecipe
from foveal.tasks.segmentation.scoring import resized, scores
from foveal.viz.label_maps import drawn, shares

MOST = 2**28
"""Scores of an image at most, 1 GiB; a larger image is answered smaller, and its record says so."""


def answers(opened: Opened, images: Iterable[str], asked: Asked) -> Iterator[Drawn]:
    """One answer a file, in order; a damaged one has its error.

    Raises:
        DataError: the network answers with what is no number.
    """
    return answered(images, lambda name, picture: _answer(opened, name, picture, draw=asked.draw))


def _answer(opened: Opened, name: str, picture: Any, *, draw: bool) -> Drawn:
    classes = list(opened.told["classes"])
    size, asked = picture.shape[:2], _affordable(picture.shape[:2], len(classes))
    labels = _labels(opened, picture, asked)
    record: dict[str, Any] = {
        "size": list(size),
        "shares": {kind: float(f"{share:.6g}") for kind, share in shares(labels, classes).items()},
    }
    if asked != size:
        record["answered_at"] = list(asked)
    colours = [tuple(colour) for colour in opened.told["colours"]]
    return Drawn(name, record, picture=drawn(picture, labels, classes, cast(Any, colours)) if draw else None)


def _affordable(size: tuple[int, int], classes: int) -> tuple[int, int]:
    """The size itself, or the largest of its shape whose scores are few enough."""
    wanted = size[0] * size[1] * classes
    if wanted <= MOST:
        return size
    factor = (MOST / wanted) ** 0.5
    return max(1, int(size[0] * factor)), max(1, int(size[1] * factor))


@torch.no_grad()
def _labels(opened: Opened, picture: Any, size: tuple[int, int]) -> Any:
    """The class of every pixel of the picture, 8 bits, from scores at ``size``."""
    from PIL import Image

    recipe, model = cast(SegmentationRecipe, opened.recipe), opened.model
    normalise = Normalisation(tuple(opened.told["mean"]), tuple(opened.told["std"]))
    image = resized(normalise.of(picture)[None], size)[0].to(opened.device)

    def network(images: Tensor) -> Tensor:
        told: Tensor = model(images.contiguous(memory_format=torch.channels_last))
        return told

    crop, stride = recipe.data.augmentation.crop, int(cast(Any, model).output_stride)
    with opened.autocast():
        told = scores(network, image, recipe.evaluation, crop=crop, stride=stride)
    if not bool(told.isfinite().all()):
        raise DataError(f"predict: {opened.source} answers with NaN, so its weights are no use. Train it again.")
    labels = told.argmax(0).to(torch.uint8).cpu().numpy()
    if labels.shape == picture.shape[:2]:
        return labels
    return np.asarray(Image.fromarray(labels).resize(picture.shape[1::-1], Image.Resampling.NEAREST))
