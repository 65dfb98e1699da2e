"""Learning to find objects: torchvision's losses, COCO's average precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from foveal.data.detection.coco import DetectionSets
from foveal.data.detection.grouping import grouped
from foveal.data.samples import mix
from foveal.models.detection import masks_in_boxes
from foveal.tasks import distributed
from foveal.tasks.agreement import by_main
from foveal.tasks.detection.precision import Precision, objects, records
from foveal.tasks.detection.recipe import DetectionRecipe
from foveal.tasks.split_task import SplitTask

RENAMED = {"classification": "loss_classifier", "bbox_regression": "loss_box_reg"}
"""What RetinaNet calls losses that Faster R-CNN has too."""
OF_MODEL = ("boxes", "labels", "masks")


class Detecting(SplitTask):
    """Learn the boxes, and the masks where the model has them, of ``data`` with the detector that ``make`` builds.

    Args:
        data: both sides.
        make: the detector, which takes and gives what torchvision's do.
        recipe: the training.
        masks: whether the detector learns masks.
    """

    def __init__(
        self, data: DetectionSets, make: Callable[[], nn.Module], recipe: DetectionRecipe, *, masks: bool
    ) -> None:
        super().__init__(data, recipe)
        self.data, self.make = data, make
        self.kinds = ("box", "mask") if masks else ("box",)
        self.results: list[dict[str, Any]] = []
        """What was found in all images at the last evaluation."""
        self.classes: list[dict[str, Any]] = []
        """One record a class from the last evaluation."""

    def build(self) -> None:
        self.models = {"model": self.make().to(memory_format=self.format)}

    def order(self, seed: int, epoch: int) -> Tensor:
        order = super().order(seed, epoch)
        if not self.training.data.aspect_ratio_grouping or self.training.data.crop is not None:
            return order
        return grouped(order, self.data.train.upright, self.batch, mix(seed, epoch, self.batch))

    def compile(self, model: nn.Module) -> None:
        """Backbone and pyramid, which see maps alone; what follows counts boxes, and would be compiled in each step."""
        detector: Any = getattr(model, "module", model)
        detector.backbone.compile()

    def step(self, batch: Any, turn: str) -> Mapping[str, Tensor]:
        (images, targets), _ = batch
        model = self.models[turn]
        device = next(model.parameters()).device
        wanted = [{name: each[name].to(device) for name in OF_MODEL if name in each} for each in targets]
        told = model([_floats(image, device) for image in images], wanted)
        loss = torch.stack(list(told.values())).sum()
        self.last = loss.detach()
        return {"loss": loss, **{RENAMED.get(name, name): value for name, value in told.items()}}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Each process finds the objects of its share of the images; the main one counts those of all."""
        self.results = [each for share in distributed.gathered(self._found()) for each in share]
        metrics, self.classes = by_main(self._counted)
        return metrics

    def _found(self) -> list[dict[str, Any]]:
        """Results of this process's share of the images, one at a time: beside others an image has a padded border."""
        model, told = self.models["model"], self.data.val.annotations
        device = next(model.parameters()).device
        known = [number if number in told.categories else None for number in self.data.category_ids]
        results: list[dict[str, Any]] = []
        with masks_in_boxes(model):
            for (images, targets), counted in self.validation(1):
                found = model([_floats(image, device) for image in images])
                for _, one, target in zip(counted, found, targets, strict=False):
                    place = int(target["image"])
                    rows, columns = told.sizes[place].tolist()
                    results += records(one, int(told.ids[place]), (rows, columns), known)
        return results

    def _counted(self) -> tuple[dict[str, float], list[dict[str, Any]]]:
        told, images = self.data.val.annotations, self.data.val.places.tolist()
        truth = told.truth(images, shapes="mask" in self.kinds)
        measured = [Precision(truth, self.results, kind) for kind in self.kinds]
        counts, shares = objects(told, images), {one.kind: one.by_class() for one in measured}
        classes = [
            {"class": name, "objects": counts[number], **{f"{kind}_ap": own[number] for kind, own in shares.items()}}
            for number, name in told.categories.items()
        ]
        return {name: value for one in measured for name, value in one.metrics().items()}, classes


def _floats(image: Tensor, device: torch.device) -> Tensor:
    """From 0 to 1, as torchvision's detectors take images."""
    return image.to(device).float().div_(255)
