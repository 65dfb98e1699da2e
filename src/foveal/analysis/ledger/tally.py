"""Counts of models and layers, made on the meta device: nothing is allocated, nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from foveal import models
from foveal.analysis.ledger.conventions import Convention, Tally
from foveal.analysis.ledger.work import Work, work_of, work_on

_REGISTERS = models
Options = tuple[tuple[str, Any], ...]


def known(model: str) -> bool:
    """Whether timm has the model, foveal's own included."""
    return bool(timm.is_model(model))


def figure(
    model: str, options: Mapping[str, Any], shape: tuple[int, ...], rule: Convention, *, fixed: int = 0
) -> float:
    """A figure of a model of timm, counted by a rule; a forward runs only where operations are asked for."""
    made = tuple(sorted(options.items()))
    work = _work(model, made, shape, rule.strided_first) if rule.operations else Work()
    return rule.read(Tally(_number(model, made), fixed, work))


def figure_of_layer(make: Callable[[], nn.Module], shape: tuple[int, ...], rule: Convention) -> float:
    """The same of one layer over a map ``(channels, *space)``."""
    return rule.read(_tally(make, shape))


@lru_cache(maxsize=1)
def _tally(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> Tally:
    with torch.device("meta"):
        layer = make()
    return Tally(_parameters(layer), 0, work_of(layer, shape))


def figure_of_network(make: Callable[[], tuple[nn.Module, tuple[Tensor, ...]]], rule: Convention) -> float:
    """The same of a network that takes more than a map; ``make`` gives it with the inputs of one sample."""
    return rule.read(_tally_of_network(make))


@cache
def _tally_of_network(make: Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]) -> Tally:
    with torch.device("meta"):
        network, inputs = make()
    return Tally(_parameters(network), 0, work_on(network, *inputs))


# Rows of a table ask for their columns one after the other; keeping every model would only hold memory.
@lru_cache(maxsize=2)
def _build(model: str, options: Options) -> nn.Module:
    with torch.device("meta"):
        return cast(nn.Module, timm.create_model(model, **dict(options)))


@cache
def _number(model: str, options: Options) -> int:
    return _parameters(_build(model, options))


@cache
def _work(model: str, options: Options, shape: tuple[int, ...], strided_first: bool) -> Work:
    built = _build(model, options)
    if not strided_first:
        return work_of(built, shape)
    _swap_strides(built)
    try:
        return work_of(built, shape)
    finally:
        _swap_strides(built)


def _swap_strides(model: nn.Module) -> None:
    """Move the stride between a bottleneck's 3x3 convolution and its first 1x1, where the first ResNets had it."""
    for block in model.modules():
        first, second = getattr(block, "conv1", None), getattr(block, "conv2", None)
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d) and first.kernel_size == (1, 1):
            first.stride, second.stride = second.stride, first.stride


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
