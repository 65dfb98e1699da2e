"""How a layer is evaluated band by band: once over what needs the whole map, once for the result."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from foveal.errors import OptionError
from foveal.functional.decays import SEPARABLE
from foveal.functional.inputs import wide_dtype
from foveal.functional.parts import RUN, Part, together
from foveal.layers.efficient import EfficientAttention
from foveal.layers.explicit import ExplicitAttention
from foveal.layers.external import ExternalAttention, MultiHeadExternalAttention
from foveal.layers.pointwise import BatchNorm

Shape = tuple[int, int, int, int]


class Evaluation(Protocol):
    """What ``run`` asks of a layer for a map of one shape."""

    channels_out: int
    stride: int
    gathers: bool
    """Whether the map is walked through before the result is made."""
    reads: bool
    """Whether the result needs the map once more."""
    halo: int
    """Rows that it then needs on both sides of a band."""

    def state(self, rows: int) -> int:
        """Bytes that stay while all bands pass, where bands have so many rows."""

    def work(self, rows: int) -> int:
        """Bytes that a band of so many rows needs beside itself and its result."""

    def gather(self, x: Tensor, start: int) -> None:
        """First walk: one band ``(batch, channels, rows, width)``."""

    def settle(self) -> None:
        """Between the walks."""

    def result(self, x: Tensor | None, first: int, start: int, rows: int) -> Tensor:
        """Second walk: the result before any pooling for one band; ``x`` begins with row ``first``."""


class Context:
    """Efficient attention: the context of all positions, then every position reads it.

    Runs of positions are summed in float32, runs in float64: over 2^26 positions the rest of a float32 sum is lost.
    """

    reads = True
    gathers = True
    stride, halo = 1, 0

    def __init__(self, layer: EfficientAttention, shape: Shape) -> None:
        self._layer, self._shape = layer, shape
        self.channels_out = layer.channels
        self._n = shape[2] * shape[3]
        self._whole: Part | None = None
        self._held: Tensor | None = None

    def state(self, rows: int) -> int:
        layer = self._layer
        depth = layer.query.out_features
        return 4 * 8 * self._shape[0] * depth * max(layer.channels, layer.value.out_features)

    def work(self, rows: int) -> int:
        layer = self._layer
        inner = 3 * layer.query.out_features + 2 * layer.value.out_features + 3 * layer.channels
        return _run_bytes(self._shape, rows, inner, layer)

    def gather(self, x: Tensor, start: int) -> None:
        parts = [self._layer.part(run, self._n) for run in x.flatten(2).split(RUN, 2)]
        self._whole = together(parts if self._whole is None else [self._whole, *parts])

    def settle(self) -> None:
        assert self._whole is not None
        self._held = self._layer.context_from(self._whole).to(wide_dtype(self._layer.query.weight))

    def result(self, x: Tensor | None, first: int, start: int, rows: int) -> Tensor:
        assert x is not None
        assert self._held is not None
        held, out = self._held, torch.empty_like(x)
        for to, run in zip(out.flatten(2).split(RUN, 2), x.flatten(2).split(RUN, 2), strict=True):
            to.copy_(self._layer.read(held, run, self._n))
        return out


class Slots:
    """External attention: greatest score and sum of every slot, in float64 as above; then every position reads."""

    reads = True
    stride, halo = 1, 0

    def __init__(self, layer: ExternalAttention | MultiHeadExternalAttention, shape: Shape) -> None:
        self._layer, self._shape = layer, shape
        self.channels_out = layer.channels
        self.gathers = layer.normalization == "double"
        self._whole: Part | None = None

    def state(self, rows: int) -> int:
        return 4 * 8 * self._shape[0] * self._layer.heads * self._layer.slots

    def work(self, rows: int) -> int:
        layer = self._layer
        inner = 3 * layer.heads * layer.slots + 2 * layer.query.out_features + 3 * layer.channels
        return _run_bytes(self._shape, rows, inner, layer)

    def gather(self, x: Tensor, start: int) -> None:
        parts = [self._layer.part(run) for run in x.flatten(2).split(RUN, 2)]
        self._whole = together(parts if self._whole is None else [self._whole, *parts])

    def settle(self) -> None:
        """Nothing: the sums are what is read with."""

    def result(self, x: Tensor | None, first: int, start: int, rows: int) -> Tensor:
        assert x is not None
        out = torch.empty_like(x)
        for to, run in zip(out.flatten(2).split(RUN, 2), x.flatten(2).split(RUN, 2), strict=True):
            to.copy_(self._layer.read(self._whole, run))
        return out


def evaluation(layer: nn.Module, shape: Shape) -> Evaluation:
    """The evaluation of a layer for a map of this shape; layers that need another order of work are refused."""
    # Explicit attention's is a file of its own, which stands on this one.
    from foveal.streaming.decayed import Decayed, Mean

    known = (EfficientAttention, ExternalAttention, MultiHeadExternalAttention, ExplicitAttention)
    name = type(layer).__name__
    if not isinstance(layer, known):
        raise OptionError(
            f"streaming.run: the layer must be one of {', '.join(k.__name__ for k in known)}, got {name}. "
            "Local attention needs neighbouring rows only: cut the map in overlapping bands."
        )
    if layer.backend is not None:
        raise OptionError(
            f"streaming.run: {name} asks for backend {layer.backend!r}, which needs the whole map. Set its backend to "
            "None."
        )
    norm = getattr(layer, "norm", None)
    if isinstance(norm, BatchNorm) and (norm.training or norm.running_var is None):
        raise OptionError(
            f"streaming.run: the norm of {name} takes its statistics from the map while it trains. Call layer.eval() "
            "first."
        )
    if isinstance(layer, EfficientAttention):
        return Context(layer, shape)
    if not isinstance(layer, ExplicitAttention):
        return Slots(layer, shape)
    if layer.decay == "uniform":
        return Mean(layer, shape)
    if layer.decay not in SEPARABLE:
        raise OptionError(
            f"streaming.run: decay {layer.decay!r} is no product over rows and columns, so a band needs every other "
            f"band. Use uniform, {' or '.join(SEPARABLE)}, or the layer itself where the map fits in memory."
        )
    return Decayed(layer, shape)


def _run_bytes(shape: Shape, rows: int, channels: int, layer: nn.Module) -> int:
    """Of so many channels at the positions of one run, in float32 at least."""
    positions = min(RUN, rows * shape[3])
    return positions * shape[0] * channels * wide_dtype(next(layer.parameters())).itemsize


def map_bytes(shape: Shape, rows: int, channels: int, dtype: torch.dtype) -> int:
    """Of a band with so many channels."""
    return math.prod((shape[0], channels, rows, shape[3])) * dtype.itemsize
