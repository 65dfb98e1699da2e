"""Every operation with inputs for one map, in every reading that it has: what the suite runs over."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foveal import functional as F
from foveal.functional import dot_product, efficient, explicit, external, local
from foveal.functional.decays import DECAYS, LEARNABLE

SPACES = [(1,), (7,), (5, 7), (1, 1), (3, 4, 2)]
HEADS, DEPTH, VALUE_DEPTH = 2, 6, 3


@dataclass(frozen=True)
class Case:
    """One reading of an operation: ``call(*tensors, mask=…, backend=…)`` on tensors of the given shapes."""

    name: str
    backends: Any
    shapes: Callable[[int, tuple[int, ...]], list[tuple[int, ...]]]
    call: Callable[..., Tensor]

    def tensors(self, space, batch=2, dtype=torch.float64, grad=True):
        return [torch.randn(s, dtype=dtype, requires_grad=grad) for s in self.shapes(batch, space)]

    def fitting(self, *tensors, **options):
        """Backends that can run this reading, found by asking for them."""
        names = []
        for name in self.backends.names():
            try:
                self.call(*tensors, backend=name, **options)
            except RuntimeError as error:
                assert "cannot run this call" in str(error)
            else:
                names.append(name)
        return names


def _qkv(batch, space):
    return [(batch, HEADS, DEPTH, *space)] * 2 + [(batch, HEADS, VALUE_DEPTH, *space)]


def _split(depth, axes):
    return [depth // axes + (a < depth % axes) for a in range(axes)]


def _window(reading):
    def shapes(batch, space):
        axes = len(space)
        tables = {
            None: [],
            "split": [(HEADS, 3, part) for part in _split(DEPTH, axes)],
            "whole": [(1, 3, DEPTH)] * axes,
        }
        return _qkv(batch, space) + tables[reading]

    return shapes


def _offsets(reading):
    def shapes(batch, space):
        parts = _split(DEPTH, len(space)) if reading == "split" else [DEPTH] * len(space)
        heads = HEADS if reading == "split" else 1
        return _qkv(batch, space) + [(heads, 2 * n - 1, part) for n, part in zip(space, parts, strict=True)]

    return shapes


def _with_tables(operation, **fixed):
    def call(q, k, v, *tables, **options):
        return operation(q, k, v, relative=list(tables) or None, **fixed, **options)

    return call


def _plain(operation, **fixed):
    return lambda *tensors, **options: operation(*tensors, **fixed, **options)


def _memories(batch, space):
    return [(batch, HEADS, DEPTH, *space), (5, DEPTH), (5, VALUE_DEPTH)]


def _memories_by_head(batch, space):
    return [(batch, HEADS, DEPTH, *space), (HEADS, 5, DEPTH), (HEADS, 5, VALUE_DEPTH), (5,)]


def _biased(x, key, value, bias, **options):
    return F.external_attention(x, key, value, key_bias=bias, **options)


def _radius(decay, shape):
    def shapes(batch, space):
        return [(batch, HEADS, VALUE_DEPTH, *space)] + ([shape] if decay in LEARNABLE else [])

    return shapes


def _decayed(decay, offset):
    def call(v, radius=None, **options):
        return F.explicit_attention(v, decay=decay, radius=radius, offset=offset, **options)

    return call


CASES = [
    Case("local", local.BACKENDS, _window(None), _with_tables(F.local_attention, kernel_size=3)),
    Case(
        "local, tables split",
        local.BACKENDS,
        _window("split"),
        _with_tables(F.local_attention, kernel_size=3, border="mask", dilation=2, scale=0.5),
    ),
    Case("local, tables whole", local.BACKENDS, _window("whole"), _with_tables(F.local_attention, kernel_size=3)),
    Case("efficient", efficient.BACKENDS, _qkv, _plain(F.efficient_attention)),
    Case("efficient, scaling", efficient.BACKENDS, _qkv, _plain(F.efficient_attention, normalization="scaling")),
    Case("external", external.BACKENDS, _memories, _plain(F.external_attention)),
    Case("external, softmax", external.BACKENDS, _memories, _plain(F.external_attention, normalization="softmax")),
    Case("external, by head", external.BACKENDS, _memories_by_head, _biased),
    *(Case(f"explicit, {decay}", explicit.BACKENDS, _radius(decay, ()), _decayed(decay, 1.0)) for decay in DECAYS),
    Case("explicit, radius by head", explicit.BACKENDS, _radius("gaussian", (HEADS,)), _decayed("gaussian", 1.0)),
    Case("explicit, no offset", explicit.BACKENDS, _radius("manhattan", ()), _decayed("manhattan", 0.0)),
    Case("dot product", dot_product.BACKENDS, _qkv, _plain(F.dot_product_attention)),
    Case("dot product, scaling", dot_product.BACKENDS, _qkv, _plain(F.dot_product_attention, normalization="scaling")),
    Case("dot product, tables whole", dot_product.BACKENDS, _offsets("whole"), _with_tables(F.dot_product_attention)),
    Case(
        "dot product, tables split",
        dot_product.BACKENDS,
        _offsets("split"),
        _with_tables(F.dot_product_attention, scale=0.3),
    ),
    Case(
        "dot product, scaling with tables",
        dot_product.BACKENDS,
        _offsets("whole"),
        _with_tables(F.dot_product_attention, normalization="scaling"),
    ),
]
