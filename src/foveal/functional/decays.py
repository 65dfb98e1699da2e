"""The six decays of explicitly modelled attention maps, as functions of the offset between key and query.

Paper: Tan et al., Explicitly Modeled Attention Maps for Image Classification (2020), equations 7 to 12.
Departures: the radius enters as sigma^2 + 1e-6 (Gaussian) or |sigma| + 1e-6 (exponentials), so that a radius that
drifts through zero keeps map and gradient finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from foveal.errors import OptionError

Decay = Literal["uniform", "linear", "cosine", "gaussian", "euclidean", "manhattan"]
DECAYS: tuple[Decay, ...] = ("uniform", "linear", "cosine", "gaussian", "euclidean", "manhattan")
LEARNABLE: tuple[Decay, ...] = ("gaussian", "euclidean", "manhattan")
SEPARABLE: tuple[Decay, ...] = ("gaussian", "manhattan")
EPS = 1e-6


def check_decay(operation: str, decay: str, radius: Tensor | None, heads: int) -> None:
    """A decay must exist, and have a radius exactly where it has a parameter."""
    if decay not in DECAYS:
        raise OptionError(f"{operation}: decay must be one of {', '.join(DECAYS)}, got {decay!r}.")
    if decay in LEARNABLE and radius is None:
        raise OptionError(f"{operation}: decay {decay!r} needs a radius, got None. The paper starts from 0.75.")
    if decay not in LEARNABLE and radius is not None:
        raise OptionError(f"{operation}: decay {decay!r} has no radius. Leave it None, or use {', '.join(LEARNABLE)}.")
    if radius is not None and tuple(radius.shape) not in ((), (heads,)):
        raise OptionError(f"{operation}: radius must have shape () or ({heads},), got {tuple(radius.shape)}.")


def offsets(length: int, like: Tensor) -> Tensor:
    """Key minus query along an axis: -(length - 1) to length - 1."""
    return torch.arange(1 - length, length, device=like.device, dtype=like.dtype)


def axis_factor(decay: Decay, length: int, radius: Tensor) -> Tensor:
    """``(heads or 1, 2 length - 1)``: a separable decay along one axis; the map is the product over axes."""
    distance = offsets(length, radius) / length
    radius = radius.reshape(-1, 1)
    if decay == "gaussian":
        return torch.exp(-distance.square() / (2 * (radius.square() + EPS)))
    return torch.exp(-distance.abs() / (radius.abs() + EPS))


def kernel(decay: Decay, space: Sequence[int], radius: Tensor | None, like: Tensor) -> Tensor:
    """``(heads or 1, *(2 length - 1))``: G as a function of the offset, for every offset that a map has."""
    if radius is not None and decay in SEPARABLE:
        out = radius.new_ones((1,) * (1 + len(space)))
        for axis, length in enumerate(space):
            shape = [-1] + [1] * len(space)
            shape[1 + axis] = 2 * length - 1
            out = out * axis_factor(decay, length, radius).reshape(shape)
        return out
    square = like.new_zeros((1,) * (1 + len(space)))
    for axis, length in enumerate(space):
        step = offsets(length, like)
        step = step / length if decay == "euclidean" else step
        square = square + step.square().reshape([1] + [-1 if a == axis else 1 for a in range(len(space))])
    distance = square.sqrt()
    longest = sum(length * length for length in space) ** 0.5
    if decay == "uniform":
        return torch.ones_like(distance)
    if decay == "linear":
        return 1 - distance / longest
    if decay == "cosine":
        return 0.5 * (1 + torch.cos(math.pi * distance / longest))
    assert radius is not None
    return torch.exp(-distance / (radius.abs() + EPS).reshape(-1, *[1] * len(space)))
