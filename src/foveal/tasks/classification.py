"""Image classification: one model, cross entropy against hard or blended labels, accuracy of the first and first 5."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.data.blending import Blend
from foveal.data.images import ImageData
from foveal.errors import OptionError
from foveal.tasks import distributed
from foveal.tasks.recipe import Recipe
from foveal.tasks.split_task import Moment, SplitTask

Batch = tuple[tuple[Tensor, Tensor], Moment]
TOP = 5
EVALUATED = 256  # images of a batch at least, where a training batch has a quarter of that


class Classification(SplitTask):
    """Learn the classes of ``data`` with the model that ``make`` builds.

    Raises:
        OptionError: see ``SplitTask``; or a part cannot be blended in pairs.
    """

    def __init__(self, data: ImageData, make: Callable[[], nn.Module], recipe: Recipe) -> None:
        super().__init__(data, recipe)
        self.data, self.make, self.recipe = data, make, recipe
        if recipe.best == "accuracy_top5" and len(data.classes) <= TOP:
            raise OptionError(
                f"train: --best accuracy_top5 says nothing of {len(data.classes)} classes. Use accuracy or loss."
            )
        self.blend = Blend(recipe.data.augmentation, len(data.classes))
        parts = self.batch // self.part
        if self.blend.blends and parts > 1 and self.part % 2:
            near = 2 * parts * (self.part // 2 + 1)
            raise OptionError(
                f"train: mixup and cutmix blend pairs, so each of the {parts} parts of a step (processes times "
                f"--accumulate) must have an even number of images, got {self.part}. Use --batch-size {near}, say."
            )

    def build(self) -> None:
        # Convolutions on a CPU run a third faster with channels last.
        self.models = {"model": self.make().to(memory_format=self.format)}

    def step(self, batch: Batch, turn: str) -> Mapping[str, Tensor]:
        (images, labels), moment = batch
        if self.blend.blends:
            images, labels = self.blend(images, labels, *moment)
        logits = self.models[turn](images.contiguous(memory_format=self.format))
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.recipe.smoothing)
        self.last = loss.detach()
        return {"loss": loss}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Each process counts its share of the images."""
        model, top = self.models["model"], min(TOP, len(self.data.classes))
        device = next(model.parameters()).device
        sums = torch.zeros(3, dtype=torch.float64, device=device)
        for (images, labels), counted in self.validation(max(self.part, min(EVALUATED, 4 * self.part))):
            images, labels = images.to(device, memory_format=self.format), labels[: len(counted)].to(device)
            logits = model(images)[: len(counted)].float()
            ranked = logits.topk(top, 1).indices == labels[:, None]
            loss = F.cross_entropy(logits, labels, reduction="sum")
            sums += torch.stack([ranked[:, 0].sum(), ranked.sum(), loss]).double()
        first, any_of, loss = sums.tolist()
        told = distributed.summed({"first": first, "any": any_of, "loss": loss})
        told = {name: value / len(self.data.val) for name, value in told.items()}
        five = {"accuracy_top5": told["any"]} if top == TOP and len(self.data.classes) > TOP else {}
        return {"accuracy": told["first"], **five, "loss": told["loss"]}
