"""A trained model on validation images: what its run measured, measured again, and by class.

The metrics are those of the task that trained the model, taken by the same code over the same batches. From the same
pass: accuracy by class, which class is taken for which, and how far probabilities can be believed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from foveal.data.images import ImageData, Item, Split
from foveal.data.options import DataOptions
from foveal.data.pictures import PictureSplit
from foveal.data.preparation import Preparation
from foveal.errors import DataError, OptionError
from foveal.tasks.classification import Classification
from foveal.tasks.recipe import Recipe
from foveal.tasks.trained import Trained

if TYPE_CHECKING:
    from PIL.Image import Image

BINS = 15
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        metrics: of the task: accuracy, accuracy_top5 where there are more than 5 classes, loss.
        calibration_error: expected calibration error in 15 bins of equal width (Guo et al., 2017, arXiv:1706.04599):
            the mean distance of confidence from accuracy, from 0 to 1.
        confusion: ``(classes, classes)`` images; a row is the true class, a column the answer.
        classes: names of both.
        seconds: reading and answering together.
    """

    metrics: Mapping[str, float]
    calibration_error: float
    confusion: Counts
    classes: tuple[str, ...]
    seconds: float

    @property
    def images(self) -> int:
        """How many were answered."""
        return int(self.confusion.sum())

    def by_class(self) -> list[dict[str, Any]]:
        """One record a class: images, accuracy (None without images), and the class it is most often taken for."""
        rows = []
        for n, (name, answers) in enumerate(zip(self.classes, self.confusion, strict=True)):
            count, wrong = int(answers.sum()), answers.copy()
            wrong[n] = 0
            other = int(wrong.argmax())
            taken = {"class": self.classes[other], "images": int(wrong[other])} if wrong[other] else None
            share = int(answers[n]) / count if count else None
            rows.append({"class": name, "images": count, "accuracy": share, "taken_for": taken})
        return rows

    def record(self) -> dict[str, Any]:
        """Plain values for JSON; the confusion matrix is written by ``write_confusion``."""
        speed = self.images / self.seconds
        return {
            **self.metrics, "calibration_error": self.calibration_error, "images": self.images,
            "seconds": round(self.seconds, 3), "images_per_second": round(speed, 1), "classes": self.by_class(),
        }  # fmt: skip


def evaluate(trained: Trained, data: ImageData, *, tell: Callable[[int], None] | None = None) -> Evaluation:
    """Evaluate on a data set's validation images.

    Args:
        trained: from ``open_run``.
        data: with the classes of the model, whatever their order; see ``data_of``.
        tell: called with the number of images that are done.

    Raises:
        DataError: the data set has other classes.
    """
    data = as_trained(trained, data)
    task = Classification(data, lambda: trained.model, _recipe(trained, data))
    task.build()
    tally = _Tally(data.val.labels, len(data.classes), tell)
    handle = task.models["model"].eval().register_forward_hook(tally.take)
    begun = time.monotonic()
    try:
        with trained.autocast():
            metrics = task.evaluate()
    finally:
        handle.remove()
    seconds = time.monotonic() - begun
    return Evaluation(metrics, tally.calibration_error(), tally.confusion, data.classes, seconds)


def data_of(trained: Trained, name: str | None = None, path: str | None = None) -> ImageData:
    """The data set of a run, or another one.

    Args:
        trained: from ``open_run``.
        name: a data set, or the path of a folder; the run's own where None.
        path: where its files lie; where the run had them where None.

    Raises:
        OptionError: a file of a model names no data, and none is given.
        DataError: the data set is not there, or not what it should be.
    """
    from foveal.data import load_options

    own = None if trained.recipe is None else trained.recipe.data
    if own is None and name is None:
        raise OptionError(f"evaluate: {trained.source} does not say which data it was trained on. Give --data.")
    options = own if own is not None and name in (None, own.name) else DataOptions(str(name))
    return load_options(options if path is None else replace(options, path=path))


def as_trained(trained: Trained, data: ImageData) -> ImageData:
    """The data with the model's classes in its order, and validation images prepared as the model takes them.

    Raises:
        DataError: the classes are others.
    """
    if set(data.classes) != set(trained.classes):
        raise DataError(f"evaluate: {data.name} {_difference(data.classes, trained.classes)}.")
    if data.classes == trained.classes and data.preparation == trained.preparation:
        return data
    labels = [trained.classes.index(data.classes[label]) for label in data.val.labels]
    return replace(
        data,
        classes=trained.classes,
        channels=trained.preparation.channels,
        size=trained.preparation.size,
        val=_Prepared(data.val, labels, trained.preparation, anew=data.preparation != trained.preparation),
        preparation=trained.preparation,
    )


class _Prepared(PictureSplit):
    """Images of another split with other labels, prepared ``anew`` or as they are."""

    def __init__(self, split: Split, labels: Sequence[int], preparation: Preparation, *, anew: bool) -> None:
        super().__init__(labels, preparation)
        self.split, self.anew = split, anew

    def __getitem__(self, index: int) -> Item:
        return super().__getitem__(index) if self.anew else (self.split[index][0], self.labels[index])

    def image(self, index: int) -> Image:
        if isinstance(self.split, PictureSplit):
            return self.split.image(index)
        from torchvision.transforms.v2 import functional

        image: Image = functional.to_pil_image(self.split.picture(index))
        return image


def _difference(found: Sequence[str], wanted: Sequence[str]) -> str:
    if len(found) != len(wanted):
        return f"has {len(found)} classes, the model was trained on {len(wanted)}. Use data with the same classes"
    one, other = (
        next(name for name in names if name not in rest) for names, rest in ((found, wanted), (wanted, found))
    )
    return f"has the class {one!r}, the model was trained on {other!r} instead. Use data with the same classes"


def _recipe(trained: Trained, data: ImageData) -> Recipe:
    """The run's own, whose batches decide how sums are rounded; it may ask for more images than other data hold."""
    recipe = trained.recipe or Recipe()
    most = len(data.train)
    return recipe if recipe.batch_size <= most else replace(recipe, batch_size=most, accumulate=1)


class _Tally:
    """Counts answers as the model gives them, in the order of the images."""

    def __init__(self, labels: Sequence[int], classes: int, tell: Callable[[int], None] | None) -> None:
        self.labels, self.tell, self.done = torch.as_tensor(list(labels)), tell, 0
        self.confusion: Counts = np.zeros((classes, classes), dtype=np.int64)
        self._bins = torch.zeros(3, BINS, dtype=torch.float64)  # images, right answers, confidence

    def take(self, model: nn.Module, images: Any, logits: Tensor) -> None:
        """A forward hook."""
        shares, answers = logits.detach().float().softmax(1).cpu().max(1)
        labels = self.labels[self.done : self.done + len(answers)]
        self.done += len(answers)
        np.add.at(self.confusion, (labels.numpy(), answers.numpy()), 1)
        place = (shares * BINS).ceil().long().sub(1).clamp(0, BINS - 1)
        told = torch.stack([torch.ones_like(shares), (answers == labels).float(), shares]).double()
        self._bins.index_add_(1, place, told)
        if self.tell is not None:
            self.tell(self.done)

    def calibration_error(self) -> float:
        """Mean over images of how far confidence lies from accuracy in the image's bin."""
        _, right, confidence = self._bins
        return float((right - confidence).abs().sum() / max(self.done, 1))


def write_confusion(path: Path, evaluation: Evaluation) -> None:
    """Write the confusion matrix as CSV: a row for each true class, a column for each answer.

    Raises:
        DataError: the file cannot be written.
    """
    import csv

    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["true class", *evaluation.classes])
            rows = zip(evaluation.classes, evaluation.confusion.tolist(), strict=True)
            writer.writerows([name, *row] for name, row in rows)
    except OSError as error:
        raise DataError(f"evaluate: {path} could not be written: {error.strerror}. Use another path.") from error
