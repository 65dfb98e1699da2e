"""A trained model with what it needs to answer: classes, and how any image becomes what it takes.

``open_run`` opens the folder of a run of ``foveal train``, one run of a comparison (``runs/demo/runs/local-0``), and a
file of ``foveal.models.save``. The data set itself is not needed: a run keeps the names of its classes and the values
of its preparation.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from foveal.data.picture import read_picture
from foveal.data.preparation import Preparation
from foveal.errors import DataError, OptionError, ShapeError
from foveal.tasks.checkpoint import Which
from foveal.tasks.descent import TYPES
from foveal.tasks.recipe import Recipe

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH = 64


@dataclass(frozen=True)
class Trained:
    """A model in evaluation mode and what was kept with it.

    Attributes:
        model: takes ``(n, channels, size, size)`` and returns logits ``(n, classes)``.
        classes: names in the order of the logits.
        preparation: from any image to what the model takes, as validation does it.
        source: the folder or file that was opened.
        name: of the model, with the mechanism that was put into it.
        weights: which they are, in words: ``"last, epoch 20"``.
        data: name of the data set that it was trained on.
        recipe: what the run was trained by; None for a file.
        recorded: what the run measured with these very weights; empty where it did not.
    """

    model: nn.Module
    classes: tuple[str, ...]
    preparation: Preparation
    source: Path
    name: str
    weights: str = ""
    data: str = ""
    recipe: Recipe | None = None
    recorded: Mapping[str, float] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def facts(self) -> dict[str, object]:
        """What a reader has to know of it, by name."""
        size = f"{self.preparation.size} pixels, {'grey' if self.preparation.channels == 1 else 'colour'}"
        told = {"Run": self.source, "Model": self.name, "Weights": self.weights, "Trained on": self.data}
        return {**{name: value for name, value in told.items() if value}, "Classes": len(self.classes), "Images": size}

    def prepare(self, image: Image | str | os.PathLike[str]) -> Tensor:
        """An image, or the path of one, as validation would have it: ``(channels, size, size)``, normalised.

        Raises:
            UnreadableError: the file is no image that can be read.
        """
        return self.preparation.normalised(self.picture(image))

    def picture(self, image: Image | str | os.PathLike[str]) -> Tensor:
        """The same in 0 to 1, as a person would see it."""
        opened = read_picture(Path(image)) if isinstance(image, (str, os.PathLike)) else image
        return self.preparation.picture(opened)

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision that the run was evaluated in."""
        precision = "no" if self.recipe is None else self.recipe.precision
        return nullcontext() if precision == "no" else torch.autocast(self.device.type, dtype=TYPES[precision])

    @torch.no_grad()
    def probabilities(self, batch: Tensor) -> Tensor:
        """``(n, classes)`` on the CPU for prepared images ``(n, channels, size, size)``.

        Raises:
            ShapeError: the images have another number of channels.
        """
        if batch.dim() != 4 or batch.shape[1] != self.preparation.channels:
            raise ShapeError(
                f"predict: images must be (n, {self.preparation.channels}, height, width), got {tuple(batch.shape)}. "
                "Use what prepare returns, stacked."
            )
        images = batch.to(self.device, memory_format=torch.channels_last)
        with self.autocast():
            logits = self.model(images)
        return logits.float().softmax(1).cpu()

    def best(self, probabilities: Tensor, top: int) -> list[list[tuple[str, float]]]:
        """The ``top`` most probable classes of each image, the first first; of equal ones the first in ``classes``."""
        ranked = probabilities.sort(dim=1, descending=True, stable=True)
        return [
            [(self.classes[n], float(share)) for n, share in zip(places, shares, strict=True)]
            for places, shares in zip(ranked.indices[:, :top].tolist(), ranked.values[:, :top].tolist(), strict=True)
        ]

    def predict(
        self, images: Iterable[Image | str | os.PathLike[str]], *, top: int = 5, batch_size: int = BATCH
    ) -> list[list[tuple[str, float]]]:
        """The most probable classes of each image, with their probabilities.

        Args:
            images: PIL images of any mode and size, or paths.
            top: classes of each image; all where there are fewer.
            batch_size: images that go through the model at a time.

        Raises:
            UnreadableError: a file is no image that can be read.
            OptionError: ``top`` or ``batch_size`` is below 1.
        """
        check_counts(top=top, batch_size=batch_size)
        told: list[list[tuple[str, float]]] = []
        for batch in in_batches(map(self.prepare, images), batch_size):
            told += self.best(self.probabilities(torch.stack(batch)), top)
        return told


def check_counts(**counts: int) -> None:
    """Raise OptionError for counts below 1."""
    for name, count in counts.items():
        if count < 1:
            raise OptionError(f"predict: --{name.replace('_', '-')} must be at least 1, got {count}. Use 1 or more.")


def in_batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of ``size``, the last one shorter."""
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def open_run(path: str | os.PathLike[str], *, which: Which = "last") -> Trained:
    """Open a run, or a file of one model.

    Args:
        path: folder of a run, of one run of a comparison, or of a model from the hub; or a ``.safetensors`` file of
            ``foveal.models.save``.
        which: of a run, the ``last`` weights or the ``best``.

    Raises:
        DataError: there is no run or model, or a part of it is missing or damaged.
        OptionError: ``which`` is neither, or a file has no ``best``.
    """
    from foveal.tasks import opening

    if which not in ("last", "best"):
        raise OptionError(f"open_run: which must be last or best, got {which!r}.")
    source = Path(path)
    kind = opening.kind_of(source)
    trained = kind(source, which)
    head = getattr(trained.model, "num_classes", len(trained.classes))
    if head != len(trained.classes):
        raise DataError(
            f"open_run: {source} names {len(trained.classes)} classes, its model answers with {head}. Save it with as "
            "many names."
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trained.model.to(device).to(memory_format=torch.channels_last).eval()
    return trained
