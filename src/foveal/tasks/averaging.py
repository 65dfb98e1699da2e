"""A moving average of a model's weights and buffers, which is what is evaluated and kept (timm's ModelEmaV3)."""

from __future__ import annotations

from typing import Any

from torch import nn


class Average:
    """The average of one model.

    ``decay`` is the share of the average that a step keeps. With ``warmup`` it grows from 0 as
    ``1 - step ** (-2/3)`` up to that. ``together`` updates all tensors in one call, where none is sharded.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool, *, together: bool = True) -> None:
        from timm.utils.model_ema import ModelEmaV3

        self._kept: Any = ModelEmaV3(model, decay=decay, use_warmup=warmup, foreach=together)
        self._kept.module.requires_grad_(False)

    @property
    def module(self) -> nn.Module:
        """The model with averaged weights, in evaluation mode."""
        kept: nn.Module = self._kept.module
        return kept

    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after optimiser step number ``step``, from 1 on."""
        self._kept.update(model, step=step)
