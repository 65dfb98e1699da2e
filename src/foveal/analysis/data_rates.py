"""How many images a second the input pipeline gives, stage by stage and as a whole, beside what a model takes.

All is measured in rounds, each stage once a round, so that whatever else the machine does falls on all of them alike.
Files were read once before: figures are those of every epoch but the first, where the data fits in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.analysis.timing import quartiles
from foveal.data.blending import Blend
from foveal.data.images import ImageData, Split
from foveal.data.pictures import PictureSplit
from foveal.data.samples import mix

Read = Callable[[int, Sequence[list[int]]], Iterable[tuple[Tensor, Tensor]]]
"""Batches of these indices, in order, by so many workers, which are kept from call to call."""
Watch = Callable[[object], None]
ROUNDS = 7
PIECE = 64  # images of a stage's sample
LEAST = 4  # batches of a loader's sample
MODEL_BATCH = 32  # images of the step that a model is timed with, at most


@dataclass(frozen=True)
class Rate:
    """Images a second: median and quartiles over rounds. ``workers`` is None for what a stage does in one process."""

    stage: str
    workers: int | None
    median: float
    q1: float
    q3: float
    rounds: int
    start_seconds: float | None = None
    """How long the first batch took, with the start of the workers."""


@dataclass(frozen=True)
class DataRates:
    """One data set, as training reads it."""

    data: str
    size: int
    channels: int
    images: int
    batch: int
    stages: tuple[Rate, ...]
    loader: tuple[Rate, ...]
    blend: Rate | None
    """Mixup and cutmix, which the training process itself does to a whole batch."""
    model: Rate | None
    """What the training step of a model takes, alone on the machine."""


def steps(workers: Sequence[int], model: bool) -> int:
    """How many things ``data_rates`` tells its ``watch`` of."""
    return ROUNDS * (1 + len(workers)) + model


def data_rates(
    data: ImageData,
    read: Read,
    *,
    batch: int,
    workers: Sequence[int] = (0, 1, 2),
    blend: Blend | None = None,
    model: nn.Module | None = None,
    seconds: float = 2.0,
    watch: Watch = lambda _: None,
) -> DataRates:
    """Measure the training images of ``data``.

    Args:
        data: drawn as its options say.
        read: the loader to measure.
        batch: images of a batch.
        workers: numbers of worker processes to measure; 0 alone where the split is in memory and needs none.
        blend: mixup and cutmix, where there are any.
        model: to compare with.
        seconds: that a round of one number of workers takes, about.
        watch: is told each piece of work as it begins.
    """
    split = data.train
    split.at(0, 0)
    workers = tuple(workers) if split.decodes else (0,)
    stages = _stages(split, watch)
    chosen = _batches(split, batch, seconds, stages[-1].median)
    loader, one = _loader(read, chosen, workers, watch)
    blended = _blend(blend, *one) if blend is not None and blend.blends else None
    if model is not None:
        watch("the model")
    return DataRates(
        data.name, data.size, data.channels, len(split), batch, stages, loader, blended,
        None if model is None else _model(model, *one, seconds),
    )  # fmt: skip


def _stages(split: Split, watch: Watch) -> tuple[Rate, ...]:
    """Each stage by itself; the last is a whole batch in one process."""
    order = cycle(split.order(0, 0).tolist())
    samples: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        watch(f"stages, round {number + 1}")
        indices = list(islice(order, PIECE))
        for stage, took in _round(split, indices).items():
            samples.setdefault(stage, []).append(PIECE / took)
    return tuple(_rate(stage, None, rates) for stage, rates in samples.items())


def _round(split: Split, indices: list[int]) -> dict[str, float]:
    """Seconds that each stage took for these images, once they are in the system's cache."""
    if not (split.decodes and isinstance(split, PictureSplit)):
        split.batch(indices)
        return {"batch at once": _seconds(lambda: split.batch(indices))}
    images = [split.image(index) for index in indices]

    def transform() -> list[Tensor]:
        if split.augment is None:
            return [split.preparation(image) for image in images]
        seeds = [mix(split.seed, split.epoch, index, 2) for index in indices]
        return [split.augment(image, seed) for image, seed in zip(images, seeds, strict=True)]

    items = transform()
    return {
        "read and decode": _seconds(lambda: [split.image(index) for index in indices]),
        "transform": _seconds(transform),
        "collate": _seconds(lambda: torch.stack(items)),
        "all of these": _seconds(lambda: split.batch(indices)),
    }


def _batches(split: Split, batch: int, seconds: float, rate: float) -> list[list[int]]:
    """Indices of as many batches as one process gives in these seconds; of less than an epoch, repeated where few."""
    count = max(LEAST, min(round(seconds * rate / batch), len(split) // batch))
    order = cycle(split.order(0, 0).tolist())
    return [list(islice(order, batch)) for _ in range(count)]


def _loader(
    read: Read, chosen: Sequence[list[int]], workers: Sequence[int], watch: Watch
) -> tuple[tuple[Rate, ...], tuple[Tensor, Tensor]]:
    """A row for each number of workers, and one batch."""
    samples: dict[int, list[float]] = {number: [] for number in workers}
    started, images = {}, len(chosen) * len(chosen[0])
    for number in workers:
        began = time.perf_counter()
        for one in islice(read(number, chosen[:1]), 1):  # noqa: B007  the batch is given back
            started[number] = time.perf_counter() - began
    for turn in range(ROUNDS):
        for number in (*workers[turn % len(workers) :], *workers[: turn % len(workers)]):
            watch(f"workers {number}, round {turn + 1}")
            samples[number].append(images / _seconds(lambda n=number: _drain(read(n, chosen))))  # type: ignore[misc]
    return tuple(_rate("whole loader", n, samples[n], started[n]) for n in workers), one


def _blend(blend: Blend, images: Tensor, labels: Tensor) -> Rate:
    took = [_seconds(lambda n=n: blend(images, labels, 0, 0, n)) for n in range(ROUNDS + 1)]  # type: ignore[misc]
    return _rate("mixup and cutmix", None, [len(images) / seconds for seconds in took[1:]])


def _model(model: nn.Module, images: Tensor, labels: Tensor, seconds: float) -> Rate:
    """Forward, loss, backward and a step of SGD, in training mode."""
    images, labels = images[:MODEL_BATCH].contiguous(memory_format=torch.channels_last), labels[:MODEL_BATCH]
    model = model.to(memory_format=torch.channels_last).train()
    # So small a rate keeps the numbers, and with them the time of a step, the same from step to step.
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    repeats = max(1, round(seconds / 2 / min(_seconds(step) for _ in range(2))))

    def some() -> None:
        for _ in range(repeats):
            step()

    took = [_seconds(some) / repeats for _ in range(ROUNDS)]
    return _rate("training step", None, [len(images) / one for one in took])


def _drain(batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    for _ in batches:
        pass


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _rate(stage: str, workers: int | None, rates: Sequence[float], start: float | None = None) -> Rate:
    return Rate(stage, workers, median(rates), *quartiles(list(rates)), len(rates), start)
