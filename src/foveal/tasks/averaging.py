"""A moving average of a model's weights and buffers, which is what is evaluated and kept (timm's ModelEmaV3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

ITERATIONS = 15
"""Of the power method, as many as torch takes when it makes a spectral norm."""


class Average:
    """The average of one model.

    ``decay`` is the share of the average that a step keeps. With ``warmup`` it grows from 0 as ``1 - n ** (-2/3)`` up
    to that, n the number of the step; without, it is ``decay`` from the second step on. Up to step ``start`` the
    average is the weights themselves. Steps are those of this model, which need not learn in each of a run.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool, start: int = 0) -> None:
        from timm.utils.model_ema import ModelEmaV3

        self.start = start
        self.updates = 0
        """Steps that were taken in."""

        self._kept: Any = ModelEmaV3(model, decay=decay, use_warmup=warmup)
        self._kept.module.requires_grad_(False)
        self._pairs: list[tuple[Tensor, Tensor]] = []

    @property
    def module(self) -> nn.Module:
        """The model with averaged weights, in evaluation mode."""
        kept: nn.Module = self._kept.module
        return kept

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after one more step.

        ``model`` must be the same, and keep its tensors, from the first update on: they are looked up once, where
        timm's own update makes both state dicts at every step. Those of sharded models are looked up every time.
        """
        self.updates += 1
        pairs = self._pairs
        if not pairs:
            own, theirs = self.module.state_dict(), model.state_dict()
            pairs = [(own[name], theirs[name]) for name in own]
            # A sharded parameter may get another storage when its module first runs.
            self._pairs = pairs if all(type(mine) is Tensor for mine in own.values()) else []
        share = 1.0 if self.updates <= self.start else 1.0 - self._kept.get_decay(self.updates)
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        # Parameters that are sharded and buffers that are not cannot be taken in one call.
        for alike in ([p for p in floats if type(p[0]) is Tensor], [p for p in floats if type(p[0]) is not Tensor]):
            if alike:
                torch._foreach_lerp_([mine for mine, _ in alike], [new for _, new in alike], share)
        for mine, new in pairs:
            if not mine.is_floating_point():
                mine.copy_(new)


@torch.no_grad()
def settle_(model: nn.Module) -> None:
    """Find the singular vectors of spectral norms anew, in place: their means are not those of the mean weights."""
    for module in model.modules():
        if not parametrize.is_parametrized(module):
            continue
        for name, own in module.parametrizations.items():  # type: ignore[operator,union-attr]
            own.train()
            for _ in range(ITERATIONS):
                getattr(module, name)  # a read in training is one iteration
            own.eval()
