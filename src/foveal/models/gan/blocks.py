"""Residual blocks of the generator and of the discriminator, spectral norm, conditional batch normalisation.

Papers: Miyato et al., Spectral Normalization for GANs (2018) and cGANs with Projection Discriminator (2018), in the
layout of StudioGAN's ResNet. Departures: its ReLU works in place, so that in its discriminator the shortcut sees the
map after the ReLU; here it sees the map, as in the papers. A pool or an interpolation that commutes with a 1x1
convolution stands where it costs less.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.overrides import TorchFunctionMode

from foveal.layers.pointwise import Pointwise

M = TypeVar("M", bound=nn.Module)
NORM_EPS = 1e-4
SPECTRAL_EPS = 1e-6


def started(module: M, *weights: str) -> M:
    """Orthogonal weights and no bias, then divided by the largest singular value at every use."""
    for name in weights or ("weight",):
        nn.init.orthogonal_(getattr(module, name))
        with _NoIteration() if getattr(module, name).is_meta else nullcontext():
            spectral_norm(module, name, eps=SPECTRAL_EPS)
    if isinstance(getattr(module, "bias", None), Tensor):
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return module


class _NoIteration(TorchFunctionMode):
    """Spares the power method where there are no values, which would take nearly all the time of making a network."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is torch.mv:
            return args[0][:, 0]
        if func is F.normalize:
            return args[0] if given.get("out") is None else given["out"]
        return func(*args, **given)


def convolution(channels_in: int, channels_out: int) -> nn.Module:
    """A 3x3 convolution that keeps the size."""
    return started(nn.Conv2d(channels_in, channels_out, 3, padding=1))


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation whose scale, one more than an embedding, and shift are those of a class.

    Without classes it is batch normalisation with a scale and a shift of its own.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=NORM_EPS, affine=num_classes == 0)
        self.scale = started(nn.Embedding(num_classes, channels)) if num_classes else None
        self.shift = started(nn.Embedding(num_classes, channels)) if num_classes else None

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        out: Tensor = self.norm(x)
        if self.scale is None or self.shift is None:
            return out
        return out * (1 + self.scale(labels))[:, :, None, None] + self.shift(labels)[:, :, None, None]


class GeneratorBlock(nn.Module):
    """Norm, ReLU, twice the size, 3x3; norm, ReLU, 3x3; beside it 1x1: ``(batch, in, h, w)`` to ``(…, 2 h, 2 w)``."""

    def __init__(self, channels_in: int, channels_out: int, num_classes: int) -> None:
        super().__init__()
        self.norm1 = ConditionalBatchNorm(channels_in, num_classes)
        self.conv1 = convolution(channels_in, channels_out)
        self.norm2 = ConditionalBatchNorm(channels_out, num_classes)
        self.conv2 = convolution(channels_out, channels_out)
        self.shortcut = started(Pointwise(channels_in, channels_out))

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        out = self.conv1(_doubled(self.norm1(x, labels).relu()))
        out = self.conv2(self.norm2(out, labels).relu())
        return out + _doubled(self.shortcut(x))


class DiscriminatorBlock(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, and where it halves a pool of means; beside it 1x1 where size or channels change.

    The first block, which sees the image, has no ReLU before its first convolution.
    """

    def __init__(self, channels_in: int, channels_out: int, *, halve: bool, first: bool = False) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        self.conv1 = convolution(channels_in, channels_out)
        self.conv2 = convolution(channels_out, channels_out)
        changed = halve or channels_in != channels_out
        self.shortcut: nn.Module = started(Pointwise(channels_in, channels_out)) if changed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.conv1(x if self.first else x.relu()).relu())
        return self._pooled(out) + self.shortcut(self._pooled(x))

    def _pooled(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) if self.halve else x


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")
