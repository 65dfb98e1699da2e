"""Image classification: one model, cross entropy against hard or blended labels, accuracy of the first and first 5."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from foveal.data.blending import Blend
from foveal.data.images import ImageData
from foveal.errors import OptionError
from foveal.tasks import distributed
from foveal.tasks.optimizers import optimizer
from foveal.tasks.reading import Reader
from foveal.tasks.recipe import Recipe
from foveal.tasks.schedules import rate
from foveal.tasks.task import Task

Moment = tuple[int, int, int]
"""Seed, epoch and step that a batch belongs to."""
Batch = tuple[Tensor, Tensor, Moment]
TOP = 5
EVALUATED = 256  # images of a batch at least, where a training batch has a quarter of that


class Classification(Task):
    """Learn the classes of ``data`` with the model that ``make`` builds.

    A step's images are the same whatever the number of processes and parts: a part is a contiguous share of them.

    Raises:
        OptionError: there are fewer images than a step takes, or processes and parts do not divide them.
    """

    def __init__(self, data: ImageData, make: Callable[[], nn.Module], recipe: Recipe) -> None:
        self.data, self.make, self.recipe = data, make, recipe
        self.batch = recipe.batch_size
        parts = recipe.accumulate * distributed.world()
        if self.batch > len(data.train):
            raise OptionError(
                f"train: --batch-size must be at most the {len(data.train)} training images of {data.name}, got "
                f"{self.batch}. Use a smaller one."
            )
        if self.batch % parts:
            raise OptionError(
                f"train: --batch-size must be a multiple of {parts} (processes times --accumulate), got {self.batch}. "
                f"Use {max(1, self.batch // parts) * parts}, say."
            )
        told = ("accuracy", "accuracy_top5") if len(data.classes) > TOP else ("accuracy",)
        if recipe.best not in told:
            raise OptionError(f"train: --best must be {' or '.join(told)}, got {recipe.best!r}.")
        self.steps_per_epoch = len(data.train) // self.batch
        self.part = self.batch // parts
        self.format = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.blend = Blend(recipe.data.augmentation, len(data.classes))
        if self.blend.blends and parts > 1 and self.part % 2:
            near = 2 * parts * (self.part // 2 + 1)
            raise OptionError(
                f"train: mixup and cutmix blend pairs, so each of the {parts} parts of a step (processes times "
                f"--accumulate) must have an even number of images, got {self.part}. Use --batch-size {near}, say."
            )
        self.reader = Reader(recipe.data.workers)
        self.last: Tensor | None = None
        """The loss of the last step that was taken, for who wants to show it."""

    def build(self) -> None:
        # Convolutions on a CPU run a third faster with channels last.
        self.models = {"model": self.make().to(memory_format=self.format)}

    def optimizers(self) -> dict[str, Optimizer]:
        return {"model": optimizer(self.models["model"], self.recipe.optimizer)}

    def batches(self, seed: int, epoch: int, start: int) -> Iterator[list[Batch]]:
        order = self.data.train.order(seed, epoch)
        steps = range(start, self.steps_per_epoch)
        chosen = [part for step in steps for part in self._parts(order, step)]
        read = self.reader.read(self.data.train, seed, epoch, chosen)
        for step in steps:
            yield [(images, labels, (seed, epoch, step)) for images, labels in islice(read, self.recipe.accumulate)]

    def _parts(self, order: Tensor, step: int) -> list[list[int]]:
        """This process's share of a step's indices, in parts."""
        whole = order[step * self.batch : (step + 1) * self.batch].tolist()
        own = distributed.share(whole, distributed.rank(), distributed.world())
        return [list(own[n : n + self.part]) for n in range(0, len(own), self.part)]

    def step(self, batch: Batch, turn: str) -> Mapping[str, Tensor]:
        images, labels, moment = batch
        if self.blend.blends:
            images, labels = self.blend(images, labels, *moment)
        logits = self.models[turn](images.contiguous(memory_format=self.format))
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.recipe.smoothing)
        self.last = loss.detach()
        return {"loss": loss}

    def schedule(self, epoch: float, epochs: int) -> float:
        highest = self.recipe.optimizer.lr
        return rate(self.recipe.schedule, highest, epoch, epochs) / highest

    def identify(self, seed: int, epoch: int, step: int) -> Mapping[str, Tensor]:
        order = self.data.train.order(seed, epoch)
        return {"indices": order[step * self.batch : (step + 1) * self.batch]}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Each process counts its share of the images."""
        model, top = self.models["model"], min(TOP, len(self.data.classes))
        device = next(model.parameters()).device
        sums = torch.zeros(3, dtype=torch.float64, device=device)
        for images, labels, counted in self._validation():
            images, labels = images.to(device, memory_format=self.format), labels[:counted].to(device)
            logits = model(images)[:counted].float()
            ranked = logits.topk(top, 1).indices == labels[:, None]
            loss = F.cross_entropy(logits, labels, reduction="sum")
            sums += torch.stack([ranked[:, 0].sum(), ranked.sum(), loss]).double()
        first, any_of, loss = sums.tolist()
        told = distributed.summed({"first": first, "any": any_of, "loss": loss})
        told = {name: value / len(self.data.val) for name, value in told.items()}
        five = {"accuracy_top5": told["any"]} if top == TOP and len(self.data.classes) > TOP else {}
        return {"accuracy": told["first"], **five, "loss": told["loss"]}

    def _validation(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Batches of this process's share, and how many images of each count.

        Every process gets as many batches: the parts of a model that is split over them are exchanged while it runs.
        """
        count, me, all_ = len(self.data.val), distributed.rank(), distributed.world()
        first, end = count * me // all_, count * (me + 1) // all_
        size = max(self.part, min(EVALUATED, 4 * self.part))
        chosen = [list(range(n, min(n + size, end))) for n in range(first, end, size)]
        counted = [len(indices) for indices in chosen]
        missing = ceil(ceil(count / all_) / size) - len(chosen)
        read = self.reader.read(self.data.val, 0, 0, [*chosen, *[[0]] * missing])
        for (images, labels), number in zip(read, [*counted, *[0] * missing], strict=True):
            yield images, labels, number
