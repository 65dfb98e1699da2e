"""What a point attends to in the last attention layer of a network on clouds."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from foveal.models.points import PointAttention
from foveal.tasks.points.networks import answered, trunk_of
from foveal.viz.overlay import Array


class Look(NamedTuple):
    """Weights of one point on those that a layer sees.

    Attributes:
        places: ``(m, 3)``, what the layer sees.
        weights: ``(m,)``.
        mark: which of them the weights are of.
        layer: in words.
    """

    places: Array
    weights: Array
    mark: int
    layer: str


@torch.no_grad()
def looked(model: nn.Module, points: Tensor, categories: Tensor) -> Look | None:
    """The weights of the point that lies farthest from the middle of its cloud: a corner, a tip, a rim.

    None where the network has no attention.

    Args:
        model: a classifier or a segmenter of points, in evaluation mode.
        points: ``(1, channels, n)``.
        categories: ``(1,)``.
    """
    trunk = trunk_of(model)
    layer, seen = trunk.layers[-1], list[Any]()
    if not isinstance(layer, PointAttention):
        return None
    handle = layer.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    try:
        answered(model, points, categories)
    finally:
        handle.remove()
    places = trunk.places(points)[0].float()
    mark = int((places - places.mean(1, keepdim=True)).square().sum(0).argmax())
    weights = layer.position_map(seen[0], at=(mark,)).float().mean(1)[0]
    name = f"layer {len(trunk.layers)} of {len(trunk.layers)}"
    return Look(places.mT.cpu().numpy(), weights.cpu().numpy(), mark, name)
