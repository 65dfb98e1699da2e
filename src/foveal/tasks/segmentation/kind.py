"""Semantic segmentation among the kinds of tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from foveal.analysis.metrics import Metric
from foveal.data.segmentation import catalog
from foveal.data.segmentation.augmentation import check as check_augmentation
from foveal.data.segmentation.catalog import LAYOUTS, normalisation_of
from foveal.data.segmentation.classes import RGB
from foveal.data.segmentation.split import SegmentationSet
from foveal.errors import OptionError
from foveal.tasks.kind import Asked, Drawn, Kind, Opened, Sizes
from foveal.tasks.segmentation.labelling import Labelling
from foveal.tasks.segmentation.networks import network
from foveal.tasks.segmentation.recipe import SegmentationRecipe
from foveal.tasks.segmentation.scoring import check as check_evaluation

METRICS = {
    "miou": Metric("mean IoU", percent=True),
    "pixel_accuracy": Metric("pixel accuracy", percent=True),
    "class_accuracy": Metric("class accuracy", percent=True),
}


class Segmentation(Kind):
    """One network, a class for every pixel."""

    name = "segmentation"
    metrics = METRICS

    def check(self, recipe: SegmentationRecipe) -> None:
        check_augmentation(recipe.data.augmentation)
        normalisation_of(recipe.data)
        check_evaluation(recipe.evaluation)
        if not recipe.head_lr > 0:
            raise OptionError(f"train: --head-lr must be above 0, got {recipe.head_lr}. Use 10, say.")

    def load(self, recipe: SegmentationRecipe) -> SegmentationSet:
        return catalog.load(recipe.data)

    def told(self, recipe: SegmentationRecipe, data: SegmentationSet) -> dict[str, Any]:
        return _told(recipe, data.classes, data.colours)

    def networks(self, recipe: SegmentationRecipe, told: Mapping[str, Any]) -> dict[str, nn.Module]:
        return {"model": network(recipe.model, len(told["classes"]))}

    def task(self, recipe: SegmentationRecipe, data: SegmentationSet) -> Labelling:
        # What does not fit is said before anything is trained.
        network(recipe.model, len(data.classes), load=True)
        return Labelling(data, lambda: network(recipe.model, len(data.classes), load=True), recipe)

    def published(self, recipe: SegmentationRecipe) -> Sizes | None:
        layout = LAYOUTS.get(recipe.data.name)
        if layout is None or not layout.counts:
            return None
        counts = dict(layout.counts)
        images = counts.get(recipe.data.train or layout.counts[0][0])
        return None if images is None else Sizes(images, _told(recipe, layout.names, ()))

    def by_class(self, task: Labelling) -> list[dict[str, Any]]:
        return task.confusion.by_class(task.data.classes)

    def answers(self, opened: Opened, images: Iterable[str], asked: Asked) -> Iterator[Drawn]:
        from foveal.tasks.segmentation.answers import answers

        return answers(opened, images, asked)


def _told(recipe: SegmentationRecipe, classes: tuple[str, ...], colours: tuple[RGB, ...]) -> dict[str, Any]:
    return {
        "classes": list(classes),
        "colours": [list(colour) for colour in colours],
        **normalisation_of(recipe.data).record(),
    }


KIND = Segmentation()
