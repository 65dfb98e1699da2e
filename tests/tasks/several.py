"""A task without batch statistics, trained in one process or as the program that torchrun starts in several.

torchrun --nproc-per-node 2 -m tests.tasks.several FOLDER NAME…   trains each of ``PLANS`` that is named, one after the
other, into FOLDER/NAME, and the main process writes what came out of each to FOLDER/NAME.json. ``NAME:stopped`` is
asked to stop in the middle and goes on, ``NAME:half`` is left there, and ``NAME:slow`` takes its time and leaves in
FOLDER/process0, FOLDER/process1 … which process does which step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.cli.together import leave
from foveal.tasks import checkpoint, distributed
from foveal.tasks.loop import Plan, fit
from foveal.tasks.task import Task

STEPS, EPOCHS, IMAGES = 8, 3, 12
RICH = Plan(EPOCHS, 0, save_seconds=1e9, clip=0.5, accumulate=2, ema=0.9, tensorboard=False)
PLANS = {
    "plain": Plan(EPOCHS, 0, save_seconds=1e9, tensorboard=False),
    "rich": RICH,
    "split": replace(RICH, shard=True),
    # With dropout and batch norm; without an average where it is started often, as that takes an import of seconds.
    "random": replace(RICH, save_steps=3, ema=None),
    "split_random": replace(RICH, save_steps=3, shard=True),
}


class Several(Task):
    """Which channel of noise is the greatest on the whole.

    ``random`` adds dropout and batch norm, which several processes do otherwise than one. ``stop`` is a rank, a step
    and the signal that the process sends itself then. With ``progress`` it writes down there what it does, and is slow.
    """

    steps_per_epoch = STEPS

    def __init__(
        self,
        plan: Plan,
        *,
        random: bool = False,
        stop: tuple[int, int, int] | None = None,
        progress: Path | None = None,
    ) -> None:
        self.plan, self.random, self.stop, self.progress = plan, random, stop, progress
        self.losses: list[Tensor] = []

    def build(self) -> None:
        norm = nn.BatchNorm2d(8) if self.random else nn.GroupNorm(2, 8)
        block = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm, nn.GELU(), nn.Flatten())
        wide = nn.ModuleList([nn.Linear(8 * 36, 40), nn.LayerNorm(40), nn.Dropout(0.3 if self.random else 0.0)])
        self.models = {"model": nn.Sequential(block, *wide, nn.Linear(40, 5)).to(memory_format=torch.channels_last)}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"model": torch.optim.AdamW(self.models["model"].parameters(), lr=1e-2, weight_decay=0.05)}

    def batches(self, seed: int, epoch: int, start: int) -> Iterable[list[Any]]:
        for step in range(start, STEPS):
            self._before(epoch * STEPS + step)
            images, labels = _images(100 * seed + 10 * epoch + step)
            own = distributed.share(range(IMAGES), distributed.rank(), distributed.world())
            size = len(own) // self.plan.accumulate
            yield [(images[n : n + size], labels[n : n + size]) for n in own[::size]]

    def _before(self, done: int) -> None:
        if self.progress is not None:
            own = self.progress / f"process{distributed.rank()}"
            own.with_suffix(".new").write_text(f"{os.getpid()} {done}")
            own.with_suffix(".new").replace(own)
            time.sleep(0.02)
        if self.stop is not None and self.stop[:2] == (distributed.rank(), done):
            os.kill(os.getpid(), self.stop[2])

    def step(self, batch: Any, turn: str) -> Mapping[str, Tensor]:
        images, labels = batch
        loss = F.cross_entropy(self.models[turn](images), labels)
        self.losses.append(loss.detach())
        return {"loss": loss}

    def schedule(self, epoch: float, epochs: int) -> float:
        return 1 - epoch / epochs

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        images, labels = _images(9999)
        return {"error": float(F.cross_entropy(self.models["model"](images), labels))}

    def curve(self) -> list[float]:
        """The loss of each step over all parts and processes."""
        # A process that was killed after the last step has none left when it comes back.
        losses = torch.stack(self.losses) if self.losses else torch.empty(0)
        own = losses.view(-1, self.plan.accumulate).mean(1)
        return torch.tensor(distributed.gathered(own.tolist())).mean(0).tolist()


def _images(number: int) -> tuple[Tensor, Tensor]:
    own = torch.Generator().manual_seed(number)
    images = torch.randn(IMAGES, 3, 6, 6, generator=own)
    return images, images.mean((2, 3)).argmax(1)


def train(folder: Path, name: str, *, again: bool = False, **options: Any) -> dict[str, Any]:
    """Train one of ``PLANS`` in ``folder``; where it stops, that is told too, and ``again`` goes on from there."""
    folder.mkdir(parents=True, exist_ok=True)
    task = Several(PLANS[name], random="random" in name, **options)
    stopped = None
    try:
        metrics = fit(task, PLANS[name], folder)
    except KeyboardInterrupt as error:
        stopped = {"step": len(task.losses) // task.plan.accumulate, "signal": error.args}
        metrics = {}
    curve = task.curve()
    if stopped is not None and again:
        return {"first": curve, "stopped": distributed.gathered(stopped), **train(folder, name)}
    return {"curve": curve, "metrics": metrics, "processes": distributed.world()}


def kept(folder: Path) -> dict[str, Tensor]:
    """The weights of the last checkpoint, and their moving average."""
    saved = checkpoint.read(folder)
    assert saved is not None
    models = [file.removesuffix(".safetensors") for file in sorted(saved.files) if file.endswith(".safetensors")]
    return {f"{model} {name}": tensor for model in models for name, tensor in saved.tensors(model).items()}


def main(where: Path, asked: str) -> None:
    """What one name of the command line asks for."""
    name, _, how = asked.partition(":")
    stops = {"stopped": (1, 10, signal.SIGUSR1), "half": (0, 10, signal.SIGTERM)}
    target = where / asked.replace(":", "_")
    told = train(target, name, again=how == "stopped", stop=stops.get(how), progress=where if how == "slow" else None)
    if distributed.is_main():
        target.with_suffix(".json").write_text(json.dumps(told))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with distributed.together():
        for argument in sys.argv[2:]:
            main(Path(sys.argv[1]), argument)
    leave(0)
