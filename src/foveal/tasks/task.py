"""What the loop asks of a job: models, data, losses, metrics and pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Picture = npt.NDArray[np.uint8]
"""``(rows, columns, 3)``."""


class Task(ABC):
    """One job. ``models`` and ``optimizers`` share their names; a step updates each of its ``turns`` in order.

    Most tasks have one model and one turn, ``"model"``. An adversarial one has two models, two optimisers, and two
    turns a step.
    """

    models: dict[str, nn.Module]
    steps_per_epoch: int
    measured_at_start = False
    """Whether a run is evaluated before its first step too, as its epoch 0."""
    seldom: frozenset[str] = frozenset()
    """Metrics that are not measured after every epoch."""

    def prepare(self) -> None:  # noqa: B027  most tasks need nothing
        """Make what the task needs beside its models and may take long; nothing that is random has begun."""

    @abstractmethod
    def build(self) -> None:
        """Fill ``models``. The loop has seeded every generator before."""

    @abstractmethod
    def optimizers(self) -> dict[str, Optimizer]:
        """One optimiser a model that learns; made after ``build``."""

    @abstractmethod
    def batches(self, seed: int, epoch: int, start: int) -> Iterable[Sequence[Any]]:
        """This process's share of each step of an epoch from number ``start`` on.

        A step is a list of parts, one for each of the plan's ``accumulate``: ``[batch]`` where nothing is accumulated.
        Every process gets as many images; the same numbers give the same parts, always.
        """

    @abstractmethod
    def step(self, batch: Any, turn: str) -> Mapping[str, Tensor]:
        """Scalars to write down, means over one part; the one named ``loss`` is descended by the turn's optimiser."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Metrics on the validation data, with every model in evaluation mode; in each of several processes the same.

        ``models`` then holds what is kept: the moving average where there is one.
        """

    def turns(self, step: int) -> Sequence[str]:
        """Which models learn in this step."""
        return tuple(self.models)

    def averaged(self) -> Sequence[str]:
        """Which models have a moving average, where the plan wants one."""
        return tuple(self.models)

    def schedule(self, epoch: float, epochs: int) -> float:
        """Factor on every learning rate after ``epoch`` of ``epochs``; a fraction within an epoch."""
        return 1.0

    def compile(self, model: nn.Module) -> None:
        """Compile one of the models for training, or what of it can be, where the plan wants that."""
        model.compile()

    def size(self, batch: Any) -> int:
        """By how much a part counts in the mean over its step: its images, the length of its first tensor."""
        return first_length(batch)

    def identify(self, seed: int, epoch: int, step: int) -> Mapping[str, Tensor]:
        """What names the images of a step, kept beside a batch that diverged: their indices, say."""
        return {}

    def state(self) -> dict[str, Any]:
        """What else a run must remember: plain values and tensors for its checkpoints."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027  most tasks remember nothing
        """Remember what ``state`` told; called after ``prepare`` and ``build``."""

    def pictures(self) -> Mapping[str, Picture]:
        """What to look at after each ``evaluate``, by name; each is written to a folder of that name in the run's."""
        return {}


def first_length(batch: Any) -> int:
    """Length of the first tensor in nested tuples, lists and dictionaries; 1 where there is none."""
    return next((len(tensor) if tensor.dim() else 1 for tensor in _tensors(batch)), 1)


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, (Mapping, list, tuple)):
        for inner in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _tensors(inner)


def weights_digest(model: nn.Module) -> str:
    """A short name of the weights: equal exactly where every bit is."""
    import hashlib

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
