"""Where each trained model looks: attention of a marked point, and the evidence for the predicted class.

Attention is the head-averaged map of the last attention layer that runs on a map fine enough to look at; a spatial gate
counts as one, a channel gate has none. Evidence is Grad-CAM (Selvaraju et al., 2017) on the last map before pooling:
every model has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from foveal.analysis.figures import FINE, Array, as_array, as_image
from foveal.analysis.figures import chosen as finest
from foveal.analysis.points import marked_points
from foveal.data.images import ImageData
from foveal.seeing import Maps, capture
from foveal.seeing.readings import reads

SAMPLES = 6


def looks(models: Mapping[str, Callable[[], nn.Module]], data: ImageData) -> list[dict[str, Any]]:
    """One record a sample image, with the maps of every model; see ``foveal.viz.write_report``."""
    chosen = samples(data)
    pictures = [data.val.picture(n) for n in chosen]
    points = [marked_points(picture)[0] for picture in pictures]
    images = torch.stack([data.val[n][0] for n in chosen])
    maps = {name: model_maps(make(), images, points, data.classes) for name, make in models.items()}
    return [
        {
            "image": as_image(picture),
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


@dataclass
class Seen:
    """What a pass left behind: its attention, and the inputs of its spatial gates."""

    maps: Maps | None = None
    gates: dict[str, tuple[nn.Module, Tensor]] = field(default_factory=dict)


@contextmanager
def noting(model: nn.Module) -> Iterator[Seen]:
    """What the attention and the spatial gates of a model get in the last forward pass of this block."""
    seen = Seen()

    def note(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.gates[name] = (module, args[0].detach())

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if _is_gate(module):
                stack.callback(module.register_forward_pre_hook(partial(note, name)).remove)
        if any(reads(module) for module in model.modules()):
            seen.maps = stack.enter_context(capture(model))
        yield seen


class Weighed(NamedTuple):
    """What one layer weighs: for each image the weights of its point, or of all points alike (a spatial gate)."""

    where: str
    weights: list[Array | None]
    of_points: bool


def attention_maps(seen: Seen, points: list[tuple[int, int]], size: torch.Size) -> Weighed:
    """For each image of a pass what its point looks at, ``size`` pixels; None for each where nothing weighs positions.

    Args:
        seen: from ``noting``.
        points: (row, column) in pixels, one an image.
        size: height and width of the images.
    """
    if seen.maps is not None:
        call = finest(seen.maps)
        shown = [call.of(n).at_pixel(point, average=True)[0] for n, point in enumerate(points)]
        return Weighed(call.name, [as_array(one) for one in shown], of_points=True)
    if not seen.gates:
        return Weighed("", [None] * len(points), of_points=False)
    where, (gate, x) = max(reversed(seen.gates.items()), key=lambda item: min(FINE, *item[1][1].shape[2:]))
    return Weighed(where, [as_array(one) for one in _gated(gate, x)], of_points=False)


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
    return reads(module) or _is_gate(module)


def _is_gate(module: nn.Module) -> bool:
    return type(module).__name__ == "SpatialAttn"


@torch.no_grad()
def _gated(gate: Any, x: Tensor) -> Tensor:
    """CBAM's weights of positions ``(n, rows, columns)``."""
    weights: Tensor = gate.gate(gate.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))
    return weights[:, 0]
