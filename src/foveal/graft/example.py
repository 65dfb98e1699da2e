"""What to feed a model that came without an example: a few guesses, best first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

_AXIS = 64  # pixels per axis where nothing says how large an input the model wants
_TOKENS = 16


def guesses(model: nn.Module) -> Iterator[Any]:
    """Inputs that the model may take, on its device and in its dtype, without touching the global random state."""
    seen = set()
    for shape in _shapes(model):
        if shape not in seen:
            seen.add(shape)
            yield [_noise(model, shape[1:])] if _is_detector(model) else _noise(model, shape)


def _shapes(model: nn.Module) -> Iterator[tuple[int, ...]]:
    first = next((m for m in model.modules() if isinstance(m, _ConvNd | nn.Linear)), None)
    channels = first.in_channels if isinstance(first, _ConvNd) else 3
    side = _stated_side(model)
    if side is not None:
        yield (1, channels, *side)
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    size = config.get("input_size") if isinstance(config, dict) else getattr(config, "input_size", None)
    if size is not None:
        yield (1, channels, *size[1:])
    if isinstance(first, _ConvNd):
        dims = len(first.kernel_size)
        yield (1, channels, *(_AXIS,) * dims)
        yield (1, channels, *(224 if dims < 3 else _AXIS // 2,) * dims)
    if isinstance(first, nn.Linear):
        yield (1, _TOKENS, first.in_features)
        yield (1, first.in_features)


def _stated_side(model: nn.Module) -> tuple[int, ...] | None:
    """The image size that a vision transformer was built for."""
    size = getattr(getattr(model, "patch_embed", model), "img_size", None) or getattr(model, "image_size", None)
    if isinstance(size, int):
        return (size, size)
    return tuple(size) if isinstance(size, tuple | list) else None


def _is_detector(model: nn.Module) -> bool:
    return any(base.__module__.startswith("torchvision.models.detection") for base in type(model).__mro__)


def _noise(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    like = reference_tensor(model)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(like.device, like.dtype)


def reference_tensor(*modules: nn.Module) -> Tensor:
    """The first floating-point parameter or buffer: it tells device and dtype."""
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                return tensor
    return torch.empty(0)
