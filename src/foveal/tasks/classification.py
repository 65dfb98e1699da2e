"""Image classification: one model, cross entropy, accuracy."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.utils.data import DataLoader

from foveal.data.images import ImageData, mix
from foveal.tasks.task import Task


@dataclass(frozen=True)
class Recipe:
    """AdamW with a linear warm-up and a cosine to zero."""

    lr: float = 5e-3
    decay: float = 0.05
    batch_size: int = 64
    warmup: float = 0.1
    smoothing: float = 0.1


class Classification(Task):
    """Learn the classes of ``data`` with the model that ``make`` builds."""

    def __init__(self, data: ImageData, make: Callable[[], nn.Module], recipe: Recipe) -> None:
        self.data, self.make, self.recipe = data, make, recipe
        self.batch = min(recipe.batch_size, len(data.train))
        self.steps_per_epoch = len(data.train) // self.batch

    def build(self) -> None:
        # Convolutions on a CPU run a third faster with channels last.
        self.models = {"model": self.make().to(memory_format=torch.channels_last)}

    def optimizers(self) -> dict[str, Optimizer]:
        from foveal.tasks.task import decayed

        model = self.models["model"]
        return {"model": AdamW(decayed(model, self.recipe.decay), lr=self.recipe.lr, foreach=True)}

    def batches(self, seed: int, epoch: int, start: int) -> Iterable[list[Any]]:
        self.data.train.at(seed, epoch)
        order = torch.randperm(len(self.data.train), generator=torch.Generator().manual_seed(mix(seed, epoch)))
        chosen = [order[n * self.batch : (n + 1) * self.batch].tolist() for n in range(start, self.steps_per_epoch)]
        return ([batch] for batch in self._loader(self.data.train, chosen))

    def _loader(self, split: Any, chosen: list[list[int]]) -> DataLoader[Any]:
        workers = min(4, os.cpu_count() or 1) if split.decodes else 0
        # A generator of its own: the loader would draw from the global one each time it starts, also when resumed.
        own = torch.Generator().manual_seed(0)
        return DataLoader(split, batch_sampler=chosen, num_workers=workers, generator=own)

    def step(self, batch: Any, turn: str) -> Mapping[str, Tensor]:
        images, labels = batch
        logits = self.models[turn](images.contiguous(memory_format=torch.channels_last))
        return {"loss": F.cross_entropy(logits, labels, label_smoothing=self.recipe.smoothing)}

    def schedule(self, epoch: float, epochs: int) -> float:
        progress = epoch / epochs
        if progress < self.recipe.warmup:
            return max(progress / self.recipe.warmup, 1e-2)
        return 0.5 * (1 + math.cos(math.pi * (progress - self.recipe.warmup) / (1 - self.recipe.warmup)))

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        right, loss = 0, 0.0
        for images, labels in self._validation():
            logits = self.models["model"](images)
            right += int((logits.argmax(1) == labels).sum())
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        return {"accuracy": right / len(self.data.val), "loss": loss / len(self.data.val)}

    def _validation(self) -> Iterator[tuple[Tensor, Tensor]]:
        count, size = len(self.data.val), 4 * self.recipe.batch_size
        device = next(self.models["model"].parameters()).device
        chosen = [list(range(n, min(n + size, count))) for n in range(0, count, size)]
        for images, labels in self._loader(self.data.val, chosen):
            yield images.to(device, memory_format=torch.channels_last), labels.to(device)
