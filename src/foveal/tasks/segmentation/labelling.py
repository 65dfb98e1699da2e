"""Learning the class of every pixel: cross entropy over the pixels that count, mean IoU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from foveal.data.segmentation.labels import IGNORE
from foveal.data.segmentation.split import SegmentationSet
from foveal.tasks import distributed
from foveal.tasks.optimizers import made_from
from foveal.tasks.segmentation.confusion import Confusion
from foveal.tasks.segmentation.groups import groups
from foveal.tasks.segmentation.recipe import SegmentationRecipe
from foveal.tasks.segmentation.scoring import answer
from foveal.tasks.split_task import SplitTask
from foveal.tasks.task import Picture
from foveal.viz.label_maps import drawn, stacked

SHOWN, WIDE = 4, 512
"""Images of the validation that are drawn, and the most pixels of their longer sides."""


class Labelling(SplitTask):
    """Learn the classes of ``data`` with the network that ``make`` builds.

    The loss of a step is the mean over the pixels that count, of all its parts and processes together.
    """

    def __init__(self, data: SegmentationSet, make: Callable[[], nn.Module], recipe: SegmentationRecipe) -> None:
        super().__init__(data, recipe)
        self.data, self.make, self.recipe = data, make, recipe
        self.confusion = Confusion(len(data.classes))
        """Of the last ``evaluate``, over all processes."""
        self.shown: dict[int, Tensor] = {}
        """Answers of the last ``evaluate`` to look at, by the index of their image."""

    def build(self) -> None:
        self.models = {"model": self.make().to(memory_format=self.format)}

    def optimizers(self) -> dict[str, Optimizer]:
        options = self.recipe.optimizer
        return {"model": made_from(groups(self.models["model"], options, self.recipe.head_lr), options)}

    def batches(self, seed: int, epoch: int, start: int) -> Iterator[list[Any]]:
        for parts in super().batches(seed, epoch, start):
            counted = sum(int((labels != IGNORE).sum()) for (_, labels), _ in parts)
            yield [((images, labels, counted), moment) for (images, labels), moment in parts]

    def step(self, batch: Any, turn: str) -> Mapping[str, Tensor]:
        (images, labels, counted), _ = batch
        logits = self.models[turn](images.contiguous(memory_format=self.format))
        total = F.cross_entropy(logits.float(), labels.long(), ignore_index=IGNORE, reduction="sum")
        # The loop takes the mean over parts and processes, each of as many images.
        over = distributed.summed({"pixels": float(counted)})["pixels"]
        loss = total * (self.recipe.accumulate * distributed.world() / max(over, 1.0))
        self.last = loss.detach()
        return {"loss": loss}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Each process counts its share of the images, one at a time."""
        model, confusion = self.models["model"], Confusion(len(self.data.classes))
        device, stride = next(model.parameters()).device, cast(Any, model).output_stride
        crop = self.recipe.data.augmentation.crop

        def network(images: Tensor) -> Tensor:
            told: Tensor = model(images.contiguous(memory_format=self.format))
            return told

        for (images, labels), counted in self.validation(size=1):
            told = answer(network, images[0].to(device), self.recipe.evaluation, crop=crop, stride=stride)
            if counted:
                confusion.add(labels[0], told)
            if counted and counted[0] < SHOWN:
                self.shown[counted[0]] = told.to("cpu", torch.uint8)
        self.confusion = confusion.all()
        return self.confusion.metrics()

    def pictures(self) -> Mapping[str, Picture]:
        """The first images of the validation: answers on the left, labels on the right."""
        rows = []
        for index, answers in sorted(self.shown.items()):
            image, labels = self.data.val.pair(index)
            both = [
                drawn(np.asarray(image), classes, self.data.classes, self.data.colours, most=WIDE)
                for classes in (answers.numpy(), labels)
            ]
            rows.append(both)
        return {"label-maps": stacked(rows)} if rows else {}
