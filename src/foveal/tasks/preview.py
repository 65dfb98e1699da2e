"""What a run of a recipe would be, without training: its size, and its learning rate where that bends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from foveal.errors import OptionError
from foveal.tasks.kind import Kind, Sizes
from foveal.tasks.kinds import kind_of
from foveal.tasks.recipe import Training
from foveal.tasks.recipe_check import check
from foveal.tasks.schedules import key_epochs, rate


@dataclass(frozen=True)
class Preview:
    """A run before it begins.

    Attributes:
        recipe: what would be trained.
        items: what is trained on: so many images, say.
        word: what those are.
        counted: whether they were counted; else they are as many as the data set's authors say.
        classes: of the data, 0 where it has none.
        size: height and width of the images in pixels; 0 where they are not all of one.
        steps_per_epoch: optimiser steps.
        parameters: of the model, those that learn.
        rates: epoch and learning rate where the schedule bends; just before a restart too.
    """

    recipe: Training
    items: int
    word: str
    counted: bool
    classes: int
    size: int
    steps_per_epoch: int
    parameters: int
    rates: tuple[tuple[float, float], ...]


def preview(recipe: Training) -> Preview:
    """What a run of this recipe would be.

    Raises:
        OptionError: the recipe contradicts itself, or an epoch has no step.
        DataError: the data are named with a path and cannot be read.
    """
    check(recipe)
    kind = kind_of(recipe)
    known = kind.published(recipe) if recipe.data.path is None else None
    sizes = known or _counted(kind, recipe)
    steps = kind.steps(recipe, sizes.items)
    if not steps:
        raise OptionError(
            f"train: --batch-size must be at most the {sizes.items} training {kind.items} of {recipe.data.name}, got "
            f"{recipe.batch_size}. Use a smaller one."
        )
    bends = key_epochs(recipe.schedule, recipe.epochs)
    return Preview(
        recipe=recipe,
        items=sizes.items,
        word=kind.items,
        counted=known is None,
        classes=len(sizes.told.get("classes", ())),
        size=sizes.told.get("preparation", {}).get("size", 0),
        steps_per_epoch=steps,
        parameters=_parameters(kind, recipe, sizes.told),
        rates=tuple((epoch, rate(recipe.schedule, recipe.optimizer.lr, epoch, recipe.epochs)) for epoch in bends),
    )


def _parameters(kind: Kind, recipe: Training, told: Mapping[str, Any]) -> int:
    """Those that learn."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                models = kind.networks(recipe, told)
        except (RuntimeError, NotImplementedError):
            # Some models read their own tensors while they are made, and these have no values on that device.
            models = kind.networks(recipe, told)
    return sum(weight.numel() for model in models.values() for weight in model.parameters() if weight.requires_grad)


def _counted(kind: Kind, recipe: Training) -> Sizes:
    data = kind.load(recipe)
    return Sizes(len(data.train), kind.told(recipe, data))
