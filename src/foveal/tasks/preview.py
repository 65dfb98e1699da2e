"""What a run of a recipe would be, without training: its size, and its learning rate where that bends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from foveal.data import load_options
from foveal.data.options import DataOptions
from foveal.tasks.networks import network
from foveal.tasks.recipe import Recipe
from foveal.tasks.recipe_check import check
from foveal.tasks.schedules import key_epochs, rate


class Published(NamedTuple):
    """A data set as its authors count it."""

    images: int
    classes: int
    size: int
    channels: int = 3


PUBLISHED = {
    "cifar10": Published(50_000, 10, 32),
    "cifar100": Published(50_000, 100, 32),
    "tiny-imagenet": Published(100_000, 200, 64),
    "imagenet": Published(1_281_167, 1000, 224),
    "imagenet-shards": Published(1_281_167, 1000, 224),
}


@dataclass(frozen=True)
class Preview:
    """A run before it begins.

    Attributes:
        recipe: what would be trained.
        images: training images.
        counted: whether the images were counted; else they are as many as the data set's authors say.
        classes: of the data.
        size: height and width of the images in pixels.
        steps_per_epoch: optimiser steps.
        parameters: of the model, those that learn.
        rates: epoch and learning rate where the schedule bends; just before a restart too.
    """

    recipe: Recipe
    images: int
    counted: bool
    classes: int
    size: int
    steps_per_epoch: int
    parameters: int
    rates: tuple[tuple[float, float], ...]


def preview(recipe: Recipe) -> Preview:
    """What a run of this recipe would be.

    Raises:
        OptionError: the recipe contradicts itself.
        DataError: the data are named with a path and cannot be read.
    """
    check(recipe)
    known = PUBLISHED.get(recipe.data.name) if recipe.data.path is None else None
    data = known or _counted(recipe.data)
    size = recipe.data.size or data.size
    like = recipe.model
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                model = network(like, classes=data.classes, channels=data.channels, size=size, load=False)
        except (RuntimeError, NotImplementedError):
            # Some models read their own tensors while they are made, and these have no values on that device.
            model = network(like, classes=data.classes, channels=data.channels, size=size, load=False)
    bends = key_epochs(recipe.schedule, recipe.epochs)
    return Preview(
        recipe=recipe,
        images=data.images,
        counted=known is None,
        classes=data.classes,
        size=size,
        steps_per_epoch=data.images // recipe.batch_size,
        parameters=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        rates=tuple((epoch, rate(recipe.schedule, recipe.optimizer.lr, epoch, recipe.epochs)) for epoch in bends),
    )


def _counted(options: DataOptions) -> Published:
    data = load_options(options)
    return Published(len(data.train), len(data.classes), data.size, data.channels)
