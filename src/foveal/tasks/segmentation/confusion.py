"""Which class each pixel has and which it is taken for, counted image by image, and what follows from the counts.

Intersection over union as Pascal VOC defines it: of all images together, not the mean over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from foveal.data.segmentation.labels import IGNORE
from foveal.errors import DataError
from foveal.tasks import distributed


class Confusion:
    """Counts ``(classes, classes)``, int64: a row is the true class, a column the answer. 255 is not counted."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.counts = torch.zeros(classes, classes, dtype=torch.int64, device="cpu")

    def add(self, labels: Tensor, answers: Tensor) -> None:
        """Count the pixels of one image.

        Args:
            labels: true classes, of any shape and integer type, 255 for what does not count.
            answers: classes, of the same shape, on any device.
        """
        labels, answers = labels.reshape(-1).cpu(), answers.reshape(-1).cpu()
        counted = labels != IGNORE
        pairs = labels[counted].long() * self.classes + answers[counted].long()
        self.counts += torch.bincount(pairs, minlength=self.classes**2).view(self.classes, self.classes)

    def all(self) -> Confusion:
        """The counts of all processes together, the same in each."""
        whole = Confusion(self.classes)
        whole.counts = torch.stack(distributed.gathered(self.counts)).sum(0)
        return whole

    def iou(self) -> Tensor:
        """Of each class: pixels that have and get it over pixels that have or get it; NaN where none do. Float64."""
        right = self.counts.diagonal().double()
        return right / (self.counts.sum(0) + self.counts.sum(1) - self.counts.diagonal()).double()

    def recall(self) -> Tensor:
        """Of each class: pixels that get it among those that have it; NaN where none do. Float64."""
        return self.counts.diagonal().double() / self.counts.sum(1).double()

    def metrics(self) -> dict[str, float]:
        """Mean IoU over the classes that are there or are given, pixel accuracy, and accuracy averaged over classes.

        Raises:
            DataError: no pixel counts.
        """
        pixels = int(self.counts.sum())
        if pixels == 0:
            raise DataError(
                "evaluate: every label of the validation images is 255, which does not count. Use labels of classes."
            )
        right = int(self.counts.diagonal().sum())
        return {
            "miou": float(self.iou().nanmean()),
            "pixel_accuracy": right / pixels,
            "class_accuracy": float(self.recall().nanmean()),
        }

    def by_class(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """One record a class: IoU, accuracy (None where there is no pixel), pixels, and what it is most taken for."""
        records = []
        for number, name in enumerate(names):
            row = self.counts[number].clone()
            row[number] = 0
            other, pixels = int(row.argmax()), int(self.counts[number].sum())
            share = int(row[other]) / pixels if int(row[other]) else None
            shares = {key: float(value[number]) for key, value in (("iou", self.iou()), ("accuracy", self.recall()))}
            told = {key: None if value != value else value for key, value in shares.items()}
            taken = {"taken_for": None if share is None else names[other], "taken_share": share}
            records.append({"class": name, **told, "pixels": pixels, **taken})
        return records
