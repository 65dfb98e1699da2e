"""Adversarial training so small that it takes a moment: images of two kinds, and a judge that knows both by their sums.

python -m tests.tasks.generation_sample FOLDER   trains once whole and once killed again and again, each attempt a
process of its own, a checkpoint every two steps, and prints a JSON object of exit statuses.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foveal.data.images import ImageData, TensorSplit, plain
from foveal.tasks import checkpoint
from foveal.tasks.generation.adversarial import Adversarial
from foveal.tasks.generation.images import GenerationSet
from foveal.tasks.generation.judges import Judge
from foveal.tasks.generation.networks import networks
from foveal.tasks.generation.recipe import DiscriminatorOptions, EvaluationOptions, GenerationData, GenerationRecipe
from foveal.tasks.loop import fit
from foveal.tasks.plan import Plan
from foveal.tasks.recipe import NamedModel
from foveal.tasks.run_folder import read_metrics
from foveal.tasks.train import plan_of

IMAGES, STEPS = 22, 5
RECIPE = GenerationRecipe(
    data=GenerationData(flip=0.0, workers=0),
    model=NamedModel("eagan", {"width": 2, "latent": 3, "slots": 2}),
    discriminator=DiscriminatorOptions(steps=3, lr=1e-3),
    evaluation=EvaluationOptions(count=9, columns=3),
    epochs=4,
    batch_size=4,
    accumulate=2,
    ema=0.8,
    ema_start=2,
    channels_last=False,
)


class Sums(Judge):
    """Features are means of the image's quarters; an image is of the class of its lighter half."""

    classes = ("low", "high")

    def __init__(self) -> None:
        self.model = nn.Linear(1, 1)
        with torch.no_grad():
            self.model.weight.fill_(1.0)
            self.model.bias.zero_()

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        quarters = nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)
        halves = torch.stack([quarters[:, 2:].sum(1), quarters[:, :2].sum(1)], 1)
        return quarters, halves.softmax(1)


def images() -> GenerationSet:
    """Light below (class low) and light above (class high), with noise; normalised as -1 to 1."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(IMAGES) % 2
    light = torch.linspace(0.1, 0.9, 8)[None, None, :, None].expand(IMAGES, 1, 8, 8)
    light = torch.where(labels[:, None, None, None] == 1, light.flip(2), light)
    noisy = (light + 0.05 * torch.randn(light.shape, generator=draw)).clamp(0, 1)
    split = TensorSplit(noisy, labels)
    data = ImageData("lights", ("low", "high"), 1, 8, split, split, plain(8, 1), "", "lights-1")
    return GenerationSet(data, data.val)


def task(recipe: GenerationRecipe = RECIPE, judge: Any = Sums) -> Adversarial:
    """The task of a recipe on these images."""
    return Adversarial(images(), lambda: networks(recipe.model, classes=2, channels=1, size=8), judge, recipe)


def plan(recipe: GenerationRecipe = RECIPE, **options: Any) -> Plan:
    """The recipe's own, with a checkpoint at the end and nothing for TensorBoard."""
    return replace(plan_of(recipe), **{"tensorboard": False, "save_seconds": 1e9, **options})


def kept(folder: Path) -> dict[str, Any]:
    """Everything that a finished run leaves and that must be the same each time."""
    saved = checkpoint.read(folder)
    assert saved is not None
    state = saved.state()
    files = {name: saved.tensors(name) for name in ("generator", "discriminator", "generator.average")}
    lines = [{key: value for key, value in line.items() if key != "seconds"} for line in read_metrics(folder)]
    pictures = {path.name: path.read_bytes() for path in sorted((folder / "samples").iterdir())}
    own = {key: state[key] for key in ("optimizers", "averaged", "task", "scaler")}
    return {"weights": files, "state": own, "metrics": lines, "pictures": pictures}


def attempt(folder: Path, stop: int | None) -> int:
    """Train in a process of its own that kills itself before its n-th forward of the discriminator."""
    child = os.fork()
    if child == 0:
        made = task()
        left = [stop or 0]

        def die(*_: Any) -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        build = made.build

        def built() -> None:
            build()
            made.models["discriminator"].register_forward_pre_hook(die)

        made.build = built  # type: ignore[method-assign]
        try:
            fit(made, plan(save_steps=2), folder)
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(top: Path) -> dict[str, Any]:
    import timm.utils.model_ema  # noqa: F401  # here once, instead of in every attempt
    import torch._dynamo  # which the first optimiser imports
    from accelerate import Accelerator

    torch.set_num_threads(1)
    Accelerator()
    os.fsync = lambda number: None
    draw = random.Random(0)
    for name in ("whole", "cut"):
        (top / name).mkdir()
    whole = attempt(top / "whole", None)
    statuses = [attempt(top / "cut", draw.randint(2, 12)) for _ in range(5)]
    return {"whole": whole, "statuses": [*statuses, attempt(top / "cut", None)]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))))
