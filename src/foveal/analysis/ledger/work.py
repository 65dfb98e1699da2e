"""What one forward does, by the definitions: multiply-accumulates and elements, kind by kind.

Published figures count equations, not the cheapest way to evaluate them; so an attention layer is counted here by its
definition, where ``foveal.analysis.count`` counts what runs. Papers also differ in which of the kinds they count:
``conventions`` adds them up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial, singledispatch
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.activation import Hardsigmoid
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from foveal import layers
from foveal.layers.base import AttentionLayer
from foveal.layers.pointwise import Pointwise
from foveal.models.points import OffsetAttention, PointExternalAttention, PointSelfAttention

_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Sigmoid, Hardsigmoid)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


@dataclass(frozen=True)
class Work:
    """Of one sample.

    Attributes:
        linear: multiply-accumulates of convolutions and linear maps.
        products: those of activations with activations, or with positions and memories.
        normed: elements that come out of norms.
        activated: elements that come out of activations.
        pooled: elements that come out of pools.
        early: what of ``linear`` a strided attention does because it comes before its pool, not after it.
    """

    linear: int = 0
    products: int = 0
    normed: int = 0
    activated: int = 0
    pooled: int = 0
    early: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Work)))


def work_of(model: nn.Module, shape: Sequence[int]) -> Work:
    """Count one forward of a model that is on the meta device, over a map ``(channels, *space)``."""
    return work_on(model, torch.empty(1, *shape, device="meta"))


def work_on(model: nn.Module, *inputs: Tensor) -> Work:
    """The same over inputs of any kind, those of one sample."""
    done: list[Work] = []
    hooks = [
        module.register_forward_hook(partial(_hook, done))
        for name, module in model.named_modules()
        if not _inside_attention(model, name)
    ]
    try:
        with torch.no_grad():
            model.eval()(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(done, Work())


def _inside_attention(model: nn.Module, name: str) -> bool:
    parts = name.split(".")
    above = (".".join(parts[:depth]) for depth in range(len(parts)) if name)
    return any(isinstance(model.get_submodule(prefix), AttentionLayer) for prefix in above)


def _hook(done: list[Work], module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    # What makes a weight of its parametrization takes none.
    if inputs and isinstance(output, Tensor) and isinstance(inputs[0], Tensor):
        done.append(_module(module, [x for x in inputs if isinstance(x, Tensor)], output))


def _module(module: nn.Module, inputs: Sequence[Tensor], y: Tensor) -> Work:
    if isinstance(module, AttentionLayer):
        return defined(module, tuple(inputs[0].shape[2:]))
    if isinstance(module, _ConvNd):
        return Work(linear=y.numel() * prod(module.weight.shape[1:]))
    if isinstance(module, nn.Linear):
        # One of several inputs has weights of its own for each.
        return Work(linear=sum(x.numel() for x in inputs) * module.out_features)
    # timm's fused norm and activation is a norm whose activation is a module of its own.
    if isinstance(module, (_BatchNorm, nn.LayerNorm)):
        return Work(normed=y.numel())
    if isinstance(module, _ACTIVATIONS):
        return Work(activated=y.numel())
    if isinstance(module, _POOLS):
        return Work(pooled=y.numel())
    return Work()


@singledispatch
def defined(layer: AttentionLayer, space: tuple[int, ...]) -> Work:
    """An attention layer over a map of this size, by its definition: projections, then what they are put into."""
    raise NotImplementedError(f"ledger: {type(layer).__name__} has no definition to count.")


def _projections(layer: nn.Module, n: int) -> int:
    return n * sum(part.weight.numel() for part in layer.modules() if isinstance(part, (Pointwise, _ConvNd)))


@defined.register
def _(layer: layers.ExplicitAttention, space: tuple[int, ...]) -> Work:
    n = prod(space)
    return Work(_projections(layer, n), n * n * layer.value.out_features)


@defined.register
def _(layer: layers.AugmentedAttention, space: tuple[int, ...]) -> Work:
    n, d, e = prod(space), layer.query.out_features, layer.value.out_features
    offsets = sum(2 * length - 1 for length in space) if len(layer.relative) else 0
    after = prod(-(-length // layer.stride) for length in space)
    early = _projections(layer, n) - _projections(layer, after)
    return Work(_projections(layer, n), n * n * (d + e) + n * d * offsets, early=early)


@defined.register
def _(layer: layers.LocalAttention, space: tuple[int, ...]) -> Work:
    n, terms = prod(space), (layer.key is not None) + (len(layer.relative) > 0)
    # The terms of the logits, and the values.
    return Work(_projections(layer, n), n * layer.channels_out * layer.kernel_size ** len(space) * (terms + 1))


@defined.register
def _(layer: layers.LocalAttentionStem, space: tuple[int, ...]) -> Work:
    # Every value map is applied to every pixel and then mixed; in evaluation the maps are mixed once for each place.
    places, width = layer.block**layer.dims, layer.channels_out
    blocks = prod(-(-length // layer.block) for length in space)
    n = blocks * places
    mixed = layer.mixture.shape[0] if layer.mixture is not None else 0
    return Work(_projections(layer, n), n * width * (mixed + 2 * places), n * width, n * width, blocks * width)


@defined.register
def _(layer: layers.EfficientAttention, space: tuple[int, ...]) -> Work:
    n, d, e = prod(space), layer.query.out_features, layer.value.out_features
    return Work(_projections(layer, n), 2 * n * d * e // layer.heads)


@defined.register
def _(layer: layers.NonLocal, space: tuple[int, ...]) -> Work:
    n, d, e = prod(space), layer.query.out_features, layer.value.out_features
    keys = prod(-(-length // 2) for length in space) if layer.pool else n
    return Work(_projections(layer, n), n * keys * (d + e))


@defined.register(layers.ExternalAttention)
@defined.register(layers.MultiHeadExternalAttention)
def _(layer: layers.ExternalAttention | layers.MultiHeadExternalAttention, space: tuple[int, ...]) -> Work:
    n, inner = prod(space), layer.query.out_features
    elements = n * layer.channels if isinstance(layer, layers.ExternalAttention) else 0
    return Work(_projections(layer, n), 2 * n * inner * layer.slots, normed=elements, activated=elements)


@defined.register(OffsetAttention)
@defined.register(PointSelfAttention)
def _(layer: OffsetAttention | PointSelfAttention, space: tuple[int, ...]) -> Work:
    n, c, d = prod(space), layer.channels, layer.query_key.out_features
    return Work(_projections(layer, n), n * n * (d + c), normed=n * c, activated=n * c)


@defined.register
def _(layer: PointExternalAttention, space: tuple[int, ...]) -> Work:
    n, c = prod(space), layer.channels
    return Work(_projections(layer, n), 2 * n * c * layer.slots, normed=n * c, activated=n * c)
