"""Classification among the kinds of tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from foveal.analysis.metrics import CLASSIFICATION
from foveal.data import load_options
from foveal.data.images import ImageData
from foveal.data.preparation import Preparation
from foveal.tasks.classification import Classification
from foveal.tasks.kind import Asked, Drawn, Kind, Opened, Sizes
from foveal.tasks.networks import check_fits, network
from foveal.tasks.recipe import Recipe

COLOUR = 3
# Training images, classes and pixels, as the authors of the data sets count them.
PUBLISHED = {
    "cifar10": (50_000, 10, 32),
    "cifar100": (50_000, 100, 32),
    "tiny-imagenet": (100_000, 200, 64),
    "imagenet": (1_281_167, 1000, 224),
    "imagenet-shards": (1_281_167, 1000, 224),
}


class Classifying(Kind):
    """One network, one class an image."""

    name = "classification"
    metrics = CLASSIFICATION

    def check(self, recipe: Recipe) -> None: ...

    def load(self, recipe: Recipe) -> ImageData:
        return load_options(recipe.data)

    def told(self, recipe: Recipe, data: ImageData) -> dict[str, Any]:
        return {"classes": list(data.classes), "preparation": data.preparation.record()}

    def networks(self, recipe: Recipe, told: Mapping[str, Any], *, load: bool = False) -> dict[str, nn.Module]:
        """``load``: to be trained, so it has the weights that the recipe starts from, and its momentum of norms."""
        prepared = told["preparation"]
        model = network(
            recipe.model if load else replace(recipe.model, norm_momentum=None),
            classes=len(told["classes"]),
            channels=prepared["channels"],
            size=prepared["size"],
            drop_path=recipe.drop_path,
            load=load,
        )
        return {"model": model}

    def task(self, recipe: Recipe, data: ImageData) -> Classification:
        told = self.told(recipe, data)
        model = self.networks(recipe, told, load=True)["model"]
        check_fits(model, recipe.model.name, classes=len(data.classes), channels=data.channels, size=data.size)
        return Classification(data, lambda: self.networks(recipe, told, load=True)["model"], recipe)

    def answers(self, opened: Opened, images: Iterable[str], asked: Asked) -> Iterator[Drawn]:
        from foveal.tasks.predict import predict
        from foveal.tasks.trained import Trained

        classes, preparation = tuple(opened.told["classes"]), Preparation.from_record(opened.told["preparation"])
        trained = Trained(opened.model, classes, preparation, opened.source, opened.name)
        for said in predict(trained, images, batch_size=asked.batch_size):
            yield Drawn(said.image, {k: v for k, v in said.record().items() if k == "top"}, said.error)

    def published(self, recipe: Recipe) -> Sizes | None:
        if recipe.data.name not in PUBLISHED:
            return None
        images, classes, size = PUBLISHED[recipe.data.name]
        prepared = {"channels": COLOUR, "size": recipe.data.size or size}
        return Sizes(images, {"classes": [str(n) for n in range(classes)], "preparation": prepared})


KIND = Classifying()
