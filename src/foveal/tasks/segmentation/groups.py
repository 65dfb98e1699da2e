"""Groups of parameters where the backbone has another rate than the head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from foveal.tasks import optimizers
from foveal.tasks.recipe import OptimizerOptions


def groups(model: nn.Module, options: OptimizerOptions, head_lr: float) -> list[dict[str, Any]]:
    """As ``optimizers.groups`` makes them, with ``head_lr`` on the rate of every part but ``backbone``."""
    if head_lr == 1.0:
        return optimizers.groups(model, options)
    made: dict[tuple[float, float], dict[str, Any]] = {}
    for name, part in model.named_children():
        own = options if name == "backbone" else replace(options, lr=options.lr * head_lr)
        for group in optimizers.groups(part, own):
            known = made.setdefault((group["weight_decay"], group["lr"]), {**group, "params": []})
            known["params"] += group["params"]
    return list(made.values())
