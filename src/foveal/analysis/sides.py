"""What ``foveal bench`` can measure: every layer of foveal with each backend, and what stands for other libraries.

A side is a row of ``SIDES``, a suite a row of ``SUITES``; a new comparison is no more than rows in these two tables.
"""

from __future__ import annotations

import copy
import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from foveal.analysis.competitors import LocalByFlex, Natten, NonLocalBySDPA
from foveal.analysis.formulations import EfficientAsPublished, ExternalAsPublished, NonLocalAsPublished
from foveal.analysis.target import Size, find, layer_row
from foveal.errors import NoMatchError, OptionError
from foveal.layers.base import AttentionLayer
from foveal.layers.local import LocalAttention
from foveal.layers.registry import REGISTRY, Row


@dataclass(frozen=True)
class Setting:
    """The map that all sides of a comparison get, and options for foveal's layers."""

    channels: int = 64
    size: Size = (28, 28)
    batch: int = 4
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.batch, self.channels, *self.size)

    def layer(self, name: str, **more: Any) -> AttentionLayer:
        """A layer of the registry for this map; parameters that start at zero, which hide what they multiply, drawn."""
        made = find(name, channels=self.channels, options={**self.options, **more}).build(self.size).to(self.device)
        assert isinstance(made, AttentionLayer)
        for parameter in made.parameters():
            if not bool(parameter.any()):
                nn.init.normal_(parameter, std=0.3)
        return made

    @property
    def heads(self) -> int:
        """The papers' 8 where they divide the channels."""
        return next(heads for heads in (8, 4, 2, 1) if self.channels % heads == 0)


@dataclass(frozen=True)
class Built:
    """A side for one setting; without a definition it stands for itself and is only checked to be finite."""

    module: nn.Module
    definition: nn.Module | None = None
    macs: int | None = None


@dataclass(frozen=True)
class Side:
    """One row: what it is, in a few words, and how it is built."""

    name: str
    about: str
    build: Callable[[Setting], Built]


@dataclass(frozen=True)
class Suite:
    """Sides under one setting; ratios are to the first."""

    name: str
    about: str
    sides: tuple[str, ...]


def definition(layer: nn.Module) -> nn.Module:
    """The same layer, evaluated as the definition says."""
    other = copy.deepcopy(layer)
    for module in other.modules():
        if isinstance(module, AttentionLayer):
            setattr(module, "backend", "reference")  # noqa: B010  each layer declares it for itself
    return other


def _ours(name: str, backend: str | None = None) -> Callable[[Setting], Built]:
    def build(setting: Setting) -> Built:
        layer = setting.layer(name, backend=backend)
        return Built(layer, definition(layer), setting.batch * layer.macs(setting.size))

    return build


def _as(name: str, rewritten: Callable[[Any], nn.Module]) -> Callable[[Setting], Built]:
    """Another evaluation of a layer's own weights."""

    def build(setting: Setting) -> Built:
        layer = setting.layer(name)
        return Built(rewritten(copy.deepcopy(layer)).to(setting.device), definition(layer))

    return build


def _flex(setting: Setting) -> Built:
    layer = setting.layer("local", border="mask")
    assert isinstance(layer, LocalAttention)
    made = LocalByFlex(copy.deepcopy(layer), setting.size, setting.device)
    return Built(made, definition(layer), setting.batch * layer.macs(setting.size))


def _other(make: Callable[[Setting], nn.Module]) -> Callable[[Setting], Built]:
    return lambda setting: Built(make(setting).to(setting.device))


def _halo(setting: Setting) -> nn.Module:
    from timm.layers.halo_attn import HaloAttn

    return HaloAttn(setting.channels, num_heads=setting.heads, block_size=7, halo_size=3)


def _bottleneck(setting: Setting) -> nn.Module:
    from timm.layers.bottleneck_attn import BottleneckAttn

    return BottleneckAttn(setting.channels, feat_size=setting.size, num_heads=setting.heads)


def _lambda(setting: Setting) -> nn.Module:
    from timm.layers.lambda_layer import LambdaLayer

    return LambdaLayer(setting.channels, num_heads=min(setting.heads, 4), r=9)


def _non_local(setting: Setting) -> nn.Module:
    from timm.layers.non_local_attn import NonLocalAttn

    return NonLocalAttn(setting.channels, rd_ratio=0.5)


def _convolution(setting: Setting) -> nn.Module:
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(setting.size) - 1](setting.channels, setting.channels, 3, padding=1)


_OTHERS = (
    Side("efficient:published", "1x1 convolutions, both softmaxes stored", _as("efficient", EfficientAsPublished)),
    Side("external:published", "convolutions, the map of the slots stored", _as("external", ExternalAsPublished)),
    Side("non_local:published", "convolutions, the n x n scores stored", _as("non_local", NonLocalAsPublished)),
    Side("sdpa", "non_local around torch's scaled_dot_product_attention", _as("non_local", NonLocalBySDPA)),
    Side("flex", "local by torch's flex_attention; on a CPU uncompiled, slow, forward only", _flex),
    Side("natten", "NATTEN's neighbourhood attention", _other(lambda s: Natten(s.channels, s.heads, 7))),
    Side("halo", "timm's HaloAttn, block 7, halo 3", _other(_halo)),
    Side("bottleneck", "timm's BottleneckAttn", _other(_bottleneck)),
    Side("lambda", "timm's LambdaLayer, window 9", _other(_lambda)),
    Side("timm_non_local", "timm's NonLocalAttn", _other(_non_local)),
    Side("conv3x3", "a 3x3 convolution", _other(_convolution)),
)
SIDES: dict[str, Side] = {
    **{row.name: Side(row.name, f"foveal's {row.layer.__name__}", _ours(row.name)) for row in REGISTRY},
    **{side.name: side for side in _OTHERS},
}

_SUITES = (
    Suite("layers", "every layer of foveal", tuple(row.name for row in REGISTRY)),
    Suite(
        "local",
        "local attention: its backends, other windows, a convolution",
        ("local", "local:tiled", "local:reference", "halo", "flex", "natten", "conv3x3"),
    ),
    Suite(
        "efficient",
        "efficient attention: its backends, as published, others that are linear in n",
        ("efficient", "efficient:native", "efficient:published", "efficient:reference", "lambda", "non_local"),
    ),
    Suite(
        "external",
        "external attention: its backends, as published",
        ("external", "external:native", "external:published", "external:reference", "multi_head_external"),
    ),
    Suite(
        "explicit",
        "explicit maps: their backends, the dense definition",
        ("explicit", "explicit:dense", "explicit:reference", "conv3x3"),
    ),
    Suite(
        "non_local",
        "attention of all positions to all",
        ("non_local", "non_local:published", "sdpa", "timm_non_local", "bottleneck", "augmented"),
    ),
)
SUITES: dict[str, Suite] = {suite.name: suite for suite in _SUITES}


def chosen(names: Sequence[str]) -> tuple[str, tuple[Side, ...]]:
    """A title and its sides: one name of a suite is that suite, else every name is a side.

    Raises:
        NoMatchError: there is no such suite or side; the nearest are told.
        OptionError: a side is there twice.
    """
    if len(names) == 1 and names[0] in SUITES:
        suite = SUITES[names[0]]
        return suite.name, tuple(side(name) for name in suite.sides)
    sides = tuple(side(name) for name in names)
    twice = [s.name for i, s in enumerate(sides) if s in sides[:i]]
    if twice or not sides:
        raise OptionError(f"bench: {', '.join(twice) or 'no side'} is there twice. Name every side once.")
    return " ".join(s.name for s in sides), sides


def side(name: str) -> Side:
    """The side of this name, ``layer:backend`` too."""
    if name in SIDES:
        return SIDES[name]
    layer, _, backend = name.partition(":")
    row = layer_row(layer)
    if row is not None:
        return _by(row, backend) if backend else SIDES[row.name]
    near = difflib.get_close_matches(name, dict.fromkeys([*SUITES, *SIDES]), n=3)
    hint = (
        f"Did you mean {' or '.join(near)}?" if near else f"Sides are {', '.join(SIDES)}; suites {', '.join(SUITES)}."
    )
    raise NoMatchError(f"bench: there is no suite or side {name!r}. {hint}")


def _by(row: Row, backend: str) -> Side:
    name = f"{row.name}:{backend}"
    known = sys.modules[row.operation.__module__].BACKENDS.names()
    if name not in SIDES and backend not in known:
        published = [side.partition(":")[2] for side in SIDES if side.startswith(f"{row.name}:")]
        raise NoMatchError(f"bench: {row.name} has no backend {backend!r}. It has {', '.join([*known, *published])}.")
    return SIDES.get(name) or Side(name, f"foveal's {row.layer.__name__} by {backend}", _ours(row.name, backend))
