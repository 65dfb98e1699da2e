"""Stereo matching: a smooth L1 loss on every classifier's disparities, and how far the last one's are off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.data.stereo.sets import StereoSet
from foveal.models.stereo.padding import crop_to, pad_to
from foveal.models.stereo.psmnet import MAX_DISPARITY
from foveal.tasks import distributed
from foveal.tasks.split_task import SplitTask
from foveal.tasks.stereo.metrics import Sums, summary, sums
from foveal.tasks.stereo.recipe import StereoRecipe


class StereoMatching(SplitTask):
    """Learn the disparities of ``data`` with the network that ``make`` builds.

    The loss of a step is a mean over the pixels that count, of all its parts and processes together.
    """

    def __init__(self, data: StereoSet, make: Callable[[], nn.Module], recipe: StereoRecipe) -> None:
        super().__init__(data, recipe, "pairs")
        self.make, self.recipe = make, recipe
        self.max_disparity = int(recipe.model.options.get("max_disparity", MAX_DISPARITY))

    def build(self) -> None:
        self.models = {"model": self.make()}

    def batches(self, seed: int, epoch: int, start: int) -> Iterator[list[Any]]:
        for parts in super().batches(seed, epoch, start):
            counted = sum(int((disparity < self.max_disparity).sum()) for (_, _, disparity), _ in parts)
            yield [((*maps, counted), moment) for maps, moment in parts]

    def step(self, batch: Any, turn: str) -> Mapping[str, Tensor]:
        (left, right, disparity, counted), _ = batch
        left, right = (images.contiguous(memory_format=self.format) for images in (left, right))
        # The loop takes the mean over parts and processes.
        pixels = distributed.summed({"pixels": float(counted)})["pixels"]
        share = pixels / (self.recipe.accumulate * distributed.world())
        outputs, weights = self.models[turn](left, right), self.recipe.loss_weights
        loss = disparity_loss(outputs, disparity, self.max_disparity, weights, pixels=share)
        self.last = loss.detach()
        return {"loss": loss}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """One pair at a time, so that no pair's numbers depend on its neighbours; processes share them."""
        model, own = self.models["model"], dict[int, Sums]()
        device = next(model.parameters()).device
        for (left, right, disparity), counted in self.validation(1):
            found = disparities(model, left[0][None].to(device), right[0][None].to(device))[0]
            own |= {index: sums(found, disparity[0].to(device), self.max_disparity) for index in counted}
        return summary(dict(chain.from_iterable(each.items() for each in distributed.gathered(own))))


def disparity_loss(
    outputs: Sequence[Tensor],
    disparity: Tensor,
    max_disparity: int,
    weights: Sequence[float],
    *,
    pixels: float | None = None,
) -> Tensor:
    """Weighted sum over outputs of the mean smooth L1 over pixels whose disparity is known and below ``max_disparity``.

    0, with gradients of 0, where there is no such pixel. PSMNet's code has ``d < 192`` on Scene Flow, where all are
    known, and ``d > 0`` on KITTI, where 0 says that nothing is known.

    Args:
        outputs: maps ``(batch, rows, columns)``, the last one best.
        disparity: ``(batch, rows, columns)``, NaN where nothing is known.
        max_disparity: of the network.
        weights: of the outputs; where there are more weights than outputs, the last ones.
        pixels: over which the mean is taken where these maps are a part of more; their own where None.
    """
    counts = disparity < max_disparity  # false where it is NaN
    wanted = torch.where(counts, disparity, 0.0)
    over = counts.sum().clamp(min=1) if pixels is None else pixels or 1.0
    total = torch.zeros((), device=disparity.device)
    for output, weight in zip(outputs, list(weights)[-len(outputs) :], strict=True):
        each = F.smooth_l1_loss(output.float(), wanted, reduction="none")
        total = total + weight * torch.where(counts, each, 0.0).sum() / over
    return total


def disparities(model: nn.Module, left: Tensor, right: Tensor) -> Tensor:
    """``(batch, rows, columns)`` of normalised pairs of any size, padded for the network and cropped again."""
    found: Tensor = model(pad_to(left), pad_to(right))
    return crop_to(found, (left.shape[-2], left.shape[-1])).float()
