"""The network that a recipe names, made for the classes or parts of its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from foveal.errors import OptionError
from foveal.tasks.points.recipe import MODELS, SEGMENTER, PointsRecipe


def network(recipe: PointsRecipe, told: Mapping[str, Any]) -> nn.Module:
    """A network with new weights.

    Args:
        recipe: its name and further arguments.
        told: classes, parts and channels of the data.

    Raises:
        OptionError: there is no such network, or it does not take an argument.
    """
    from foveal import models

    name, options = recipe.model.name, dict(recipe.model.options)
    if told["parts"]:
        _check_name(name, (SEGMENTER,), recipe)
        given = {"num_parts": len(told["part_names"]), "num_categories": len(told["classes"])}
        # A recipe may say that the category is not told.
        given |= {"num_categories": options.pop("num_categories")} if "num_categories" in options else {}
        if given["num_categories"] not in (0, len(told["classes"])):
            raise OptionError(
                f"train: model.options.num_categories must be 0 or the {len(told['classes'])} of {recipe.data.name}, "
                f"got {given['num_categories']!r}."
            )
    else:
        _check_name(name, MODELS, recipe)
        given = {"num_classes": len(told["classes"])}
    try:
        model: nn.Module = getattr(models, name)(in_chans=told["channels"], **given, **options)
    except TypeError as error:
        shown = ", ".join(f"{option}={value!r}" for option, value in options.items())
        raise OptionError(f"train: {name} cannot be made with {shown}: {error}. Change --model.options.") from error
    return model


def trunk_of(model: nn.Module) -> Any:
    """What makes features of points, of a classifier or a segmenter."""
    return model.trunk


def answered(model: nn.Module, points: Tensor, categories: Tensor) -> Tensor:
    """Logits ``(b, classes)`` or ``(b, parts, n)``; who is told categories gets them."""
    inner = getattr(model, "module", model)  # as several processes wrap it
    if getattr(inner, "num_parts", None) is None:
        return model(points)
    return model(points, categories if inner.num_categories else None)


def _check_name(name: str, known: tuple[str, ...], recipe: PointsRecipe) -> None:
    if name not in known:
        raise OptionError(
            f"train: {recipe.data.name} {'has parts' if known == (SEGMENTER,) else 'has a class for each cloud'}, so "
            f"--model.name must be {' or '.join(known)}, got {name!r}."
        )
