"""What train, evaluate and predict ask of a kind of task: its recipe, data, networks, metrics and answers.

A ``Kind`` is one object for each; ``foveal.tasks.kinds`` is the table of them. The work of one training is a ``Task``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from foveal.analysis.metrics import Metric
from foveal.data.samples import Samples
from foveal.errors import OptionError
from foveal.tasks.descent import TYPES
from foveal.tasks.recipe import Training
from foveal.tasks.task import Task


class Data(Protocol):
    """A data set as every kind of task has it."""

    @property
    def name(self) -> str:
        """Of the data set."""

    @property
    def fingerprint(self) -> str:
        """Changes when the data do."""

    @property
    def skipped(self) -> tuple[str, ...]:
        """One line for each item that was left out: what and why."""

    @property
    def train(self) -> Samples:
        """What is learned from."""

    @property
    def val(self) -> Samples:
        """What is measured on."""


class Sizes(NamedTuple):
    """A data set as its authors count it, for who has not got it.

    Attributes:
        items: that are trained on.
        told: what ``Kind.told`` would say.
    """

    items: int
    told: Mapping[str, Any]


@dataclass(frozen=True)
class Opened:
    """The trained networks of a run and what was kept with them.

    Attributes:
        models: by name, in evaluation mode, on the device that there is.
        recipe: what the run was trained by.
        told: what the run keeps of its data: see ``Kind.told``.
        source: the folder that was opened.
        name: of the model.
        weights: which they are, in words: ``"last, epoch 20"``.
        recorded: what the run measured with these very weights; empty where it did not.
    """

    models: dict[str, nn.Module]
    recipe: Training
    told: Mapping[str, Any]
    source: Path
    name: str
    weights: str = ""
    recorded: Mapping[str, float] = field(default_factory=dict)

    @property
    def model(self) -> nn.Module:
        """The only one, or the first, which is the one that answers."""
        return next(iter(self.models.values()))

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return next(self.model.parameters()).device

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision that the run was evaluated in."""
        precision = self.recipe.precision
        return nullcontext() if precision == "no" else torch.autocast(self.device.type, dtype=TYPES[precision])

    def facts(self) -> dict[str, object]:
        """What a reader has to know of it, by name."""
        told = {"Run": self.source, "Model": self.name, "Weights": self.weights, "Trained on": self.recipe.data.name}
        return {name: value for name, value in told.items() if value}


@dataclass(frozen=True)
class Asked:
    """What someone wants of the answers.

    Attributes:
        batch_size: items that go through the model at a time.
        threshold: least score of what is told; the kind's own where None.
        right: the other image of each pair, in the order of the first ones.
        count: how many are made, where nothing is given.
        seed: of what is drawn at random.
        draw: whether pictures are wanted.
        category: what every item is of, where the answer depends on it and items do not tell.
    """

    batch_size: int = 8
    threshold: float | None = None
    right: tuple[str, ...] = ()
    count: int | None = None
    seed: int = 0
    draw: bool = False
    category: str | None = None


@dataclass(frozen=True)
class Drawn:
    """The answer for one file.

    Attributes:
        image: the file as it was named or found.
        record: plain values for a line of JSON; empty where there is an error.
        error: why the file has no answer.
        picture: ``(rows, columns, 3)``, 8 bits, the answer drawn; None where none was asked for.
        keep: suffix to what else ``--draw`` writes beside the picture: ``{".pfm": write}``.
    """

    image: str
    record: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    picture: Any = None
    keep: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)

    def line(self) -> dict[str, Any]:
        """Plain values for a line of JSON."""
        return {"image": self.image, **(self.record if self.error is None else {"error": self.error})}


class Kind(ABC):
    """One kind of task."""

    name: str
    metrics: Mapping[str, Metric]
    """What it measures, in the order in which it is shown."""
    items = "images"
    """What one counts."""
    asks: frozenset[str] = frozenset()
    """Which of ``Asked`` mean something here: batch_size, threshold, right, count, seed, category."""
    needs_files = True
    """Whether it answers for files; else it makes what it shows."""

    def metric(self, name: str) -> Metric:
        """How a metric is called and printed; one that the table does not have as it is."""
        return self.metrics.get(name) or Metric(name.replace("_", " "))

    @abstractmethod
    def check(self, recipe: Any) -> None:
        """Raise OptionError where a recipe contradicts itself; ranges of common numbers are checked before."""

    @abstractmethod
    def load(self, recipe: Any) -> Any:
        """The ``Data`` of a recipe; DataError says how the folder has to look."""

    @abstractmethod
    def told(self, recipe: Any, data: Any) -> dict[str, Any]:
        """Plain values of the data that ``networks`` and ``answers`` need where the data are not there."""

    @abstractmethod
    def networks(self, recipe: Any, told: Mapping[str, Any]) -> dict[str, nn.Module]:
        """New networks with random weights, by the names of the task's models; the one that answers first."""

    @abstractmethod
    def task(self, recipe: Any, data: Any) -> Task:
        """What is trained."""

    @abstractmethod
    def answers(self, opened: Opened, images: Iterable[str], asked: Asked) -> Iterator[Drawn]:
        """What trained networks say of each file, in order; a damaged one has its error, and the others go on."""

    def published(self, recipe: Any) -> Sizes | None:
        """The recipe's data as their authors count them; None where nobody does."""
        return None

    def steps(self, recipe: Any, items: int) -> int:
        """Optimiser steps of an epoch."""
        return items // int(recipe.batch_size)

    def by_class(self, task: Any) -> list[dict[str, Any]]:
        """What the last ``evaluate`` of a task found, class by class: one record each, the first value its name."""
        return []

    writes_results = False
    """Whether ``write_results`` has something to write."""

    def write_results(self, task: Any, path: Path) -> None:
        """Write what the last ``evaluate`` of a task found as the field's servers take it."""
        raise OptionError(f"evaluate: --results is for detection, {self.name} has no such file. Leave it out.")

    def voted(self, recipe: Any, votes: int) -> Any:
        """A recipe that is measured by so many votes."""
        raise OptionError(f"evaluate: --votes is of points, not of {self.name}. Leave it out.")
