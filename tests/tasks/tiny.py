"""A task of a moment that uses every generator, and kills or interrupts itself after so many steps."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from foveal.tasks.loop import Plan, fit
from foveal.tasks.task import Task, weights_digest

STEPS = 5


class Tiny(Task):
    """Learns nothing in particular, with dropout, batch norm, and noise from Python and NumPy."""

    def __init__(self, stop: int = 0, how: int = signal.SIGKILL, lr: float = 1e-2, parts: int = 1) -> None:
        self.stop, self.how, self.lr, self.parts, self.steps_per_epoch = stop, how, lr, parts, STEPS

    def build(self) -> None:
        self.models = {"model": nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))}

    def optimizers(self) -> dict[str, Optimizer]:
        return {"model": AdamW(self.models["model"].parameters(), lr=self.lr, weight_decay=0.1)}

    def batches(self, seed: int, epoch: int, start: int) -> Iterable[list[Tensor]]:
        for n in range(start, STEPS):
            images = torch.randn(7, 4, generator=torch.Generator().manual_seed(1000 * seed + 10 * epoch + n))
            yield list(images.tensor_split(self.parts))

    def step(self, batch: Any, turn: str) -> Mapping[str, Tensor]:
        noise = random.random() + float(np.random.rand())
        self.stop -= 1
        if self.stop == 0:
            os.kill(os.getpid(), self.how)
        return {"loss": (self.models[turn](batch) - noise).square().mean()}

    def schedule(self, epoch: float, epochs: int) -> float:
        return 1 - epoch / epochs

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        return {"size": float(self.models["model"](torch.ones(1, 4)).abs())}


def plan(epochs: int = 3, seed: int = 0, **options: Any) -> Plan:
    """A checkpoint after every step, and nothing for TensorBoard, whose import takes longer than the training."""
    return replace(Plan(epochs, seed, save_seconds=0.0, tensorboard=False), **options)


def train(folder: Path, epochs: int = 3, seed: int = 0, **options: Any) -> str:
    """Train in a folder and name the weights."""
    folder.mkdir(exist_ok=True, parents=True)
    task = Tiny(**options)
    fit(task, plan(epochs, seed), folder)
    return weights_digest(task.models["model"])
