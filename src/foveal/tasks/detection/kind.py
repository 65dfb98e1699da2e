"""Detection among the kinds of tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from foveal.analysis.metrics import Metric
from foveal.data.detection.coco import DetectionSets, load_detection
from foveal.data.detection.options import DetectionData
from foveal.errors import OptionError
from foveal.models.detection import DETECTORS, MASKS, detector
from foveal.models.detection.sites import PLACES
from foveal.tasks.detection.detecting import Detecting
from foveal.tasks.detection.precision import WITHIN, measured_parts, write_results
from foveal.tasks.detection.recipe import DetectionModel, DetectionRecipe
from foveal.tasks.kind import Asked, Drawn, Kind, Opened, Sizes

WORDS = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "AP small", "ap_medium": "AP medium"}
WORDS |= {"ap_large": "AP large"}
METRICS = {
    f"{kind}_{part}": Metric(f"{kind} {words}", percent=True)
    for kind in ("box", "mask")
    for part, words in WORDS.items()
}
COCO = (117_266, 80, 90)
"""Training images with an object that is no crowd, categories, and the largest id of one."""
LEAST_CROP = 32
HEADS = ("roi_heads.box_predictor", "roi_heads.mask_predictor.mask_fcn_logits", "head.classification_head.cls_logits")
"""Layers that begin anew where weights are of other classes."""
ATTENTION = tuple(f"backbone.{place}.attention." for place in PLACES.values())


class Detection(Kind):
    """One detector: boxes with classes, and masks where it has them."""

    name = "detection"
    metrics = METRICS
    asks = frozenset({"threshold"})
    writes_results = True

    def check(self, recipe: DetectionRecipe) -> None:
        _check_data(recipe.data)
        if recipe.model.name not in DETECTORS:
            raise OptionError(
                f"train: --model.name must be one of {', '.join(DETECTORS)}, got {recipe.model.name!r}. Use mask_rcnn."
            )
        if recipe.best.startswith("mask") and not _masks(recipe):
            raise OptionError(
                f"train: --best {recipe.best} needs a model that learns masks, got {recipe.model.name}. Use box_ap."
            )

    def load(self, recipe: DetectionRecipe) -> DetectionSets:
        return load_detection(recipe.data, masks=_masks(recipe))

    def told(self, recipe: DetectionRecipe, data: DetectionSets) -> dict[str, Any]:
        return {"classes": list(data.classes), "category_ids": list(data.category_ids)}

    def networks(self, recipe: DetectionRecipe, told: Mapping[str, Any]) -> dict[str, nn.Module]:
        return {"model": network(recipe.model, len(told["classes"]))}

    def task(self, recipe: DetectionRecipe, data: DetectionSets) -> Detecting:
        classes = len(data.classes)
        _check_best(recipe.best, data)
        return Detecting(data, lambda: network(recipe.model, classes, load=True), recipe, masks=_masks(recipe))

    def published(self, recipe: DetectionRecipe) -> Sizes | None:
        if recipe.data.name != "coco":
            return None
        images, categories, largest = COCO
        classes = [str(n + 1) for n in range(categories if recipe.data.labels == "dense" else largest)]
        return Sizes(images, {"classes": classes, "category_ids": list(range(1, len(classes) + 1))})

    def by_class(self, task: Detecting) -> list[dict[str, Any]]:
        return task.classes

    def write_results(self, task: Detecting, path: Path) -> None:
        write_results(path, task.results)

    def answers(self, opened: Opened, images: Iterable[str], asked: Asked) -> Iterator[Drawn]:
        from foveal.tasks.detection.answers import answers

        return answers(opened, images, asked)


def network(model: DetectionModel, classes: int, *, load: bool = False) -> nn.Module:
    """The detector of a recipe for so many classes; ``load``: with the weights that the recipe starts from."""
    from foveal.models.backbones import load_weights_, read_weights

    options = dict(model.options)
    if not load and options.pop("weights_backbone", None) is not None:
        options.setdefault("trainable_layers", 3)  # what it would be with them
    made = detector(model.name, options, classes=classes)
    if load and model.weights is not None:
        state = read_weights(model.weights)
        attention = {key: value for key, value in made.state_dict().items() if key.startswith(ATTENTION)}
        if options.get("identity") and not attention.keys() & state.keys():
            state |= attention  # it begins as nothing, so the file's detector is whole without it
        load_weights_(made, state, model.weights, heads=HEADS)
    return made


def _masks(recipe: DetectionRecipe) -> bool:
    return recipe.model.name in MASKS


def _check_best(best: str, data: DetectionSets) -> None:
    """Raise where no object has the size that the best checkpoint is to be chosen by."""
    told, part = data.val.annotations, best.partition("_")[2]
    areas = told.areas[~told.crowds & np.isin(told.owners, data.val.places)]
    if best and part not in measured_parts(areas):
        least, most = WITHIN[part]
        raise OptionError(
            f"train: --best {best} is of objects of {least:,} to {most:,.0f} pixels, and {told.path} has none. "
            f"Use {best.partition('_')[0]}_ap."
        )


def _check_data(data: DetectionData) -> None:
    if not 0 <= data.flip <= 1:
        raise OptionError(f"train: --data.flip must be at least 0 and at most 1, got {data.flip}. Use 0.5, say.")
    if data.crop is not None and data.crop < LEAST_CROP:
        raise OptionError(f"train: --data.crop must be at least {LEAST_CROP}, got {data.crop}. Use 640, say.")
    low, high = data.jitter
    if not 0 < low <= high:
        raise OptionError(f"train: --data.jitter must rise and be above 0, got {low} {high}. Use 0.5 2.0, say.")
    if data.crop is None and data.jitter != (1.0, 1.0):
        raise OptionError("train: --data.jitter is of what is cropped. Give --data.crop 640, say, or leave it out.")


KIND = Detection()
