"""Clouds of points among the kinds of tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

from torch import nn

from foveal.analysis.metrics import Metric
from foveal.data.points import catalog, modelnet, shapenet
from foveal.data.points.clouds import PointData
from foveal.errors import OptionError
from foveal.tasks.kind import Asked, Drawn, Kind, Opened, Sizes
from foveal.tasks.points.learning import PointLearning
from foveal.tasks.points.networks import network, trunk_of
from foveal.tasks.points.recipe import SEGMENTER, PointsRecipe

CLASSES = ("accuracy", "class_accuracy")
PARTS = ("instance_miou", "category_miou", "accuracy")
VOTED = "voted_"
METRICS = {
    "accuracy": Metric("accuracy", percent=True),
    "class_accuracy": Metric("mean class accuracy", percent=True),
    "instance_miou": Metric("instance mIoU", percent=True),
    "category_miou": Metric("category mIoU", percent=True),
    "voted_accuracy": Metric("accuracy, voted", percent=True),
    "voted_class_accuracy": Metric("mean class accuracy, voted", percent=True),
    "voted_instance_miou": Metric("instance mIoU, voted", percent=True),
    "voted_category_miou": Metric("category mIoU, voted", percent=True),
    "loss": Metric("loss", least=True),
}


class Points(Kind):
    """One network; a class for each cloud, or a part for each point."""

    name = "points"
    items = "clouds"
    asks = frozenset({"batch_size", "seed", "category"})
    metrics = METRICS

    def check(self, recipe: PointsRecipe) -> None:
        catalog.check(recipe.data)
        voting, parts = recipe.voting, recipe.data.name in catalog.WITH_PARTS
        if voting.votes < 0:
            raise OptionError(f"train: --voting.votes must be at least 0, got {voting.votes}. Use 10, say.")
        low, high = voting.scale
        if not 0 < low <= high < float("inf"):
            raise OptionError(
                f"train: --voting.scale must be two factors above 0, the smaller first, got {low} {high}."
            )
        if not 0 <= recipe.smoothing < 1:
            raise OptionError(f"train: --smoothing must be at least 0 and below 1, got {recipe.smoothing}.")
        told = PARTS if parts else CLASSES
        known = ("loss", *told, *((f"{VOTED}{name}" for name in told) if voting.votes else ()))
        if recipe.best not in known:
            raise OptionError(f"train: --best must be one of {', '.join(known)}, got {recipe.best!r}.")
        if (recipe.model.name == SEGMENTER) != parts:
            what = "parts" if parts else "a class for each cloud and no parts"
            raise OptionError(
                f"train: {recipe.data.name} has {what}, and {recipe.model.name} does not tell these. Use "
                f"--model.name {SEGMENTER if parts else 'spct'}."
            )

    def load(self, recipe: PointsRecipe) -> PointData:
        return catalog.load(recipe.data)

    def told(self, recipe: PointsRecipe, data: PointData) -> dict[str, Any]:
        return {
            "classes": list(data.classes),
            "parts": {name: list(own) for name, own in data.parts.items()},
            "part_names": list(data.part_names),
            "channels": data.channels,
            "points": recipe.data.points,
            "unit_sphere": data.unit_sphere,
        }

    def networks(self, recipe: PointsRecipe, told: Mapping[str, Any]) -> dict[str, nn.Module]:
        model = network(recipe, told)
        fewest = trunk_of(model).fewest
        if told["points"] < fewest:
            raise OptionError(
                f"train: {recipe.model.name} samples {fewest} points of a cloud, got clouds of {told['points']}. Use "
                f"--data.points {fewest} or more, or smaller groupings in --model.options."
            )
        return {"model": model}

    def task(self, recipe: PointsRecipe, data: PointData) -> PointLearning:
        told = self.told(recipe, data)

        def make() -> nn.Module:
            from foveal.models.backbones import load_weights_, read_weights

            model = self.networks(recipe, told)["model"]
            if recipe.model.weights is not None:
                # Networks of points end in a Sequential, whose last map has a row for each class.
                last = f"head.{len(cast(nn.Sequential, model.head)) - 1}"
                load_weights_(model, read_weights(recipe.model.weights), recipe.model.weights, heads=(last,))
            return model

        return PointLearning(data, make, recipe)

    def published(self, recipe: PointsRecipe) -> Sizes | None:
        told = {"channels": 6 if recipe.data.normals else 3, "points": recipe.data.points, "unit_sphere": True}
        if recipe.data.name == "modelnet40":
            classes = [str(n) for n in range(40)]
            return Sizes(modelnet.TRAINED, {"classes": classes, "parts": {}, "part_names": [], **told})
        if recipe.data.name != "shapenet-part":
            return None
        parts = shapenet.published_parts()
        items = shapenet.TRAINED if recipe.data.held_out == "test" else shapenet.TRAINED_ALONE
        names = list(shapenet.numbered(parts))
        own = {name: list(numbers) for name, numbers in parts.items()}
        return Sizes(items, {"classes": list(parts), "parts": own, "part_names": names, **told})

    def by_class(self, task: PointLearning) -> list[dict[str, Any]]:
        classes = task.data.classes
        if task.ious is not None:
            rows = zip(classes, *task.ious.tolist(), strict=True)
            return [{"category": name, "clouds": int(n), "miou": s / n if n else None} for name, s, n in rows]
        return [] if task.confusion is None else _confused(task.confusion.long().tolist(), classes)

    def voted(self, recipe: PointsRecipe, votes: int) -> PointsRecipe:
        if votes < 1:
            raise OptionError(f"evaluate: --votes must be at least 1, got {votes}. Use 10, say.")
        return replace(recipe, voting=replace(recipe.voting, votes=votes))

    def answers(self, opened: Opened, images: Iterable[str], asked: Asked) -> Iterator[Drawn]:
        from foveal.tasks.points.answers import answers

        return answers(opened, images, asked)


def _confused(table: list[list[int]], classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """How many of each class are found, and what the others are most often taken for."""
    rows = []
    for n, (name, counts) in enumerate(zip(classes, table, strict=True)):
        all_, wrong = sum(counts), [0 if k == n else count for k, count in enumerate(counts)]
        worst = max(wrong)
        taken = f"{classes[wrong.index(worst)]} ({worst})" if worst else None
        rows.append({"class": name, "clouds": all_, "accuracy": counts[n] / all_ if all_ else None, "taken_for": taken})
    return rows


KIND = Points()
