"""Where each trained model looks: attention of a marked point, and the evidence for the predicted class.

Attention is the head-averaged map of the last attention layer that runs on a map fine enough to look at; a spatial gate
counts as one, a channel gate has none. Evidence is Grad-CAM (Selvaraju et al., 2017) on the last map before pooling:
every model has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.data.images import ImageData
from foveal.layers.base import AttentionLayer

SAMPLES = 6
FINE = 7  # rows and columns from which on a map shows where something is
Array = npt.NDArray[np.float64]
Seen = dict[str, tuple[nn.Module, Tensor]]


def looks(models: Mapping[str, Callable[[], nn.Module]], data: ImageData) -> list[dict[str, Any]]:
    """One record a sample image, with the maps of every model; see ``foveal.viz.write_report``."""
    chosen = samples(data)
    pictures = [data.val.picture(n) for n in chosen]
    points = [marked_point(picture) for picture in pictures]
    images = torch.stack([data.val[n][0] for n in chosen])
    maps = {name: model_maps(make(), images, points, data.classes) for name, make in models.items()}
    return [
        {
            "image": _picture(picture),
            "label": data.classes[data.val.labels[n]],
            "point": point,
            "maps": {name: maps[name][row] for name in maps},
        }
        for row, (n, picture, point) in enumerate(zip(chosen, pictures, points, strict=True))
    ]


def samples(data: ImageData) -> list[int]:
    """A validation image of each of the first classes, then seconds, until there are enough."""
    seen: dict[int, int] = {}
    ranked = []
    for n, label in enumerate(data.val.labels):
        ranked.append((seen.get(label, 0), label, n))
        seen[label] = seen.get(label, 0) + 1
    return [n for _, _, n in sorted(ranked)[:SAMPLES]]


def marked_point(picture: Tensor) -> tuple[int, int]:
    """The position that differs most from the image's middle brightness, averaged over its surroundings."""
    grey = picture.mean(0)
    reach = max(min(grey.shape) // 8, 1) | 1
    away = F.avg_pool2d((grey - grey.median()).abs()[None, None], reach, 1, reach // 2, count_include_pad=False)[0, 0]
    return divmod(int(away.argmax()), away.shape[1])


def model_maps(
    model: nn.Module, images: Tensor, points: list[tuple[int, int]], classes: tuple[str, ...]
) -> list[dict[str, Any]]:
    """For each image the attention of its point, the evidence, the answer, and which layer was asked."""
    with noting(model) as seen:
        evidence, predicted = grad_cam(model, images)
    where, attention, _ = attention_maps(seen, points, images.shape[2:])
    return [
        {
            "attention": attention[n],
            "evidence": None if evidence is None else evidence[n],
            "predicted": classes[predicted[n]],
            "where": where,
        }
        for n in range(len(points))
    ]


@contextmanager
def noting(model: nn.Module) -> Iterator[Seen]:
    """What each attention layer of a model gets in the last forward pass of this block, by the layer's name."""
    seen: Seen = {}
    attending = {name: module for name, module in model.named_modules() if attends(module)}
    handles = [module.register_forward_pre_hook(partial(_note, seen, name)) for name, module in attending.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


class Maps(NamedTuple):
    """What one layer weighs: for each image the weights of its point, or of all points alike (a spatial gate)."""

    where: str
    weights: list[Array | None]
    of_points: bool


def attention_maps(seen: Seen, points: list[tuple[int, int]], size: torch.Size) -> Maps:
    """For each image of a pass what its point looks at; None for each where no layer weighs positions.

    Args:
        seen: from ``noting``.
        points: (row, column) in pixels, one an image.
        size: height and width of the images.
    """
    if not seen:
        return Maps("", [None] * len(points), of_points=False)
    where, (layer, x) = _finest(seen)
    weights = [_attention(layer, x[n : n + 1], point, size) for n, point in enumerate(points)]
    return Maps(where, weights, isinstance(layer, AttentionLayer))


def _finest(seen: Seen) -> tuple[str, tuple[nn.Module, Tensor]]:
    """The last layer whose map has ``FINE`` positions an axis, or, where none has, the one with the largest map."""
    last_first = list(reversed(seen.items()))
    return max(last_first, key=lambda item: min(FINE, *item[1][1].shape[2:]))


def grad_cam(model: nn.Module, images: Tensor) -> tuple[Array | None, list[int]]:
    """Evidence ``(n, h, w)`` for the predicted classes, None where the last features are no map, and those classes."""
    with torch.no_grad():
        features = model.forward_features(images)  # type: ignore[operator]
    features.requires_grad_(True)
    logits = model.forward_head(features)  # type: ignore[operator]
    predicted = logits.argmax(1)
    (gradient,) = torch.autograd.grad(logits.gather(1, predicted[:, None]).sum(), features)
    if getattr(model, "output_fmt", None) == "NHWC":
        features, gradient = features.movedim(-1, 1), gradient.movedim(-1, 1)
    if features.dim() != 4:
        return None, predicted.tolist()
    cam = (gradient.mean((2, 3), keepdim=True) * features).sum(1).clamp_min(0).detach()
    cam = cam / cam.amax((1, 2), keepdim=True).clamp_min(1e-12)
    return cam.double().numpy(), predicted.tolist()


def attends(module: nn.Module) -> bool:
    """Whether a module weighs positions."""
    return isinstance(module, AttentionLayer) or type(module).__name__ == "SpatialAttn"


def _note(seen: Seen, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
    seen.pop(name, None)
    seen[name] = (module, args[0].detach())


@torch.no_grad()
def _attention(layer: nn.Module, x: Tensor, point: tuple[int, int], size: torch.Size) -> Array | None:
    if isinstance(layer, AttentionLayer):
        at = tuple(int((p + 0.5) * length / full) for p, length, full in zip(point, x.shape[2:], size, strict=True))
        weights = layer.position_map(x, at=at)[0].mean(0)
    elif type(layer).__name__ == "SpatialAttn":
        both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        weights = layer.gate(layer.conv(both))[0, 0]  # type: ignore[operator]
    else:
        return None
    array: Array = weights.double().cpu().numpy()
    return array


def _picture(picture: Tensor) -> Array:
    array: Array = picture.double().clamp(0, 1).numpy()
    return array[0] if len(array) == 1 else array.transpose(1, 2, 0)
