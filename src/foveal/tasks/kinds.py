"""The one table of tasks: what ``task:`` in a recipe means. Nothing is imported before it is asked for."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from foveal.errors import OptionError
from foveal.tasks.recipe import Training

if TYPE_CHECKING:
    from foveal.tasks.kind import Kind

CLASSIFICATION = "classification"
# Name to the class of its recipes; its Kind is KIND in the package beside. Classification has commands of its own.
RECIPES = {
    CLASSIFICATION: "foveal.tasks.recipe:Recipe",
    "detection": "foveal.tasks.detection.recipe:DetectionRecipe",
    "segmentation": "foveal.tasks.segmentation.recipe:SegmentationRecipe",
    "stereo": "foveal.tasks.stereo.recipe:StereoRecipe",
    "generation": "foveal.tasks.generation.recipe:GenerationRecipe",
    "points": "foveal.tasks.points.recipe:PointsRecipe",
}


def recipe_type(task: Any, where: str = "recipe") -> type[Training]:
    """The class that recipes of a task are read into; imports no torch.

    Raises:
        OptionError: there is no such task.
    """
    if task not in RECIPES:
        raise OptionError(f"{where}: there is no task {task!r}. Use {', '.join(RECIPES)}.")
    module, _, name = RECIPES[task].partition(":")
    found: type[Training] = getattr(import_module(module), name)
    return found


@lru_cache
def kind_named(task: str) -> Kind:
    """The ``Kind`` of a task by name."""
    if task == CLASSIFICATION:
        from foveal.tasks.classifying import KIND
    else:
        KIND = import_module(f"foveal.tasks.{task}.kind").KIND
    kind: Kind = KIND
    return kind


def kind_of(recipe: Training) -> Kind:
    """The ``Kind`` of a recipe."""
    return kind_named(recipe.task)
