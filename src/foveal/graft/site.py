"""A site: one place in a model, described as far as a layer that shall stand there has to know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from foveal.layers.base import AttentionLayer

Layout = Literal["channels first", "channels last"]

_POOLS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)  # fmt: skip
_CHANNELS_FIRST = (_ConvNd, _BatchNorm, _InstanceNorm, nn.GroupNorm, *_POOLS, AttentionLayer)


@dataclass(frozen=True)
class Site:
    """One place in a model.

    Attributes:
        name: dotted name of the module, ``""`` for the model itself.
        module: what stands there now.
        channels_in: channels of its input.
        channels_out: channels of its output.
        stride: input size over output size, the largest over the axes.
        size: spatial size of the input; None where the model could not be traced.
        size_out: spatial size of the output.
        dims: spatial axes; tokens ``(batch, positions, channels)`` have one.
        layout: where the tensors of this site carry their channels. Layers always see channels first.
    """

    name: str
    module: nn.Module
    channels_in: int
    channels_out: int
    stride: int = 1
    size: tuple[int, ...] | None = None
    size_out: tuple[int, ...] | None = None
    dims: int | None = None
    layout: Layout = "channels first"


def fixed_layout(module: nn.Module, shape: tuple[int, ...]) -> Layout | None:
    """The layout that the type of a module prescribes for its tensors, None where the type says nothing."""
    if isinstance(module, _CHANNELS_FIRST):
        return "channels first"
    if isinstance(module, nn.Linear | nn.Embedding):
        return "channels last"
    if not isinstance(module, nn.LayerNorm) or len(module.normalized_shape) != 1 or len(shape) < 2:
        return None
    # Subclasses named LayerNorm2d normalise axis 1, plain ones the last axis.
    first, last = (shape[axis] == module.normalized_shape[0] for axis in (1, -1))
    if first and last:
        return "channels first" if "2d" in type(module).__name__ else "channels last"
    return "channels first" if first else "channels last"


def own_channels(module: nn.Module) -> tuple[int, int] | None:
    """Channels in and out that a module states itself, None for one that does not."""
    for taken, given in (("in_channels", "out_channels"), ("in_features", "out_features")):
        if isinstance(getattr(module, taken, None), int) and isinstance(getattr(module, given, None), int):
            return cast(int, getattr(module, taken)), cast(int, getattr(module, given))
    for both in ("num_features", "num_channels"):
        if isinstance(getattr(module, both, None), int) and isinstance(module, _CHANNELS_FIRST):
            return cast(int, getattr(module, both)), cast(int, getattr(module, both))
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        return module.normalized_shape[0], module.normalized_shape[0]
    return None


def own_dims(module: nn.Module) -> int | None:
    """Spatial axes that the type of a module prescribes."""
    if isinstance(module, _ConvNd):
        return len(module.kernel_size)
    if isinstance(module, nn.Linear | nn.LayerNorm):
        return 1
    return next((n for n in (1, 2, 3) if type(module).__name__.endswith(f"{n}d")), None)


def own_stride(module: nn.Module) -> int:
    """The stride that a convolution or pool states, 1 for all else."""
    stride = getattr(module, "stride", 1)
    return max(stride) if isinstance(stride, tuple) and stride else stride if isinstance(stride, int) else 1
