"""Explicit attention: maps given by the distance between positions, without key and query.

Paper: Tan et al., Explicitly Modeled Attention Maps for Image Classification (2020), equations 4 to 12.
Departures: those of ``decays``; heads of their own radius, masks, one and three dimensions go beyond the paper.
Symbols: n positions, c = batch x heads x depth channels, L = length of an axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from foveal.functional.backends import Backend, Backends, Run
from foveal.functional.decays import LEARNABLE, SEPARABLE, Decay, axis_factor, check_decay, kernel
from foveal.functional.inputs import (
    autocast,
    check_beside,
    check_maps,
    check_mask,
    check_number,
    refuse_forward_mode,
    wide_dtype,
    without_autocast,
)
from foveal.functional.sizes import example_sizes, open_sizes, runs
from foveal.kernels.cpu import explicit as native
from foveal.kernels.triton import load as gpu
from foveal.kernels.triton.fits import explicit_why_not


def explicit_attention(
    v: Tensor,
    *,
    decay: Decay,
    radius: Tensor | None = None,
    offset: float = 1.0,
    mask: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Norm(G + offset) V: 2 c n (sum of L) operations where G is separable, 2 c n for a uniform map.

    Args:
        v: ``(batch, heads, depth, *space)``, one to three space axes.
        decay: ``uniform``, ``linear``, ``cosine`` (no radius), ``gaussian``, ``euclidean``, ``manhattan``.
        radius: of shape ``()`` or ``(heads,)``; distances are per axis in units of the axis's length.
        offset: added to G before each row is divided by its sum; the paper's 1, or 0 for its ablation.
        mask: boolean ``(batch, *space)``, True for positions that may be attended to.
        backend: one of ``BACKENDS.names()``; None takes the one that costs least. All are exact.

    Returns:
        ``(batch, heads, depth, *space)``; zeros where there is nothing to attend to.

    Raises:
        ShapeError: the shape of ``v`` or ``mask``.
        OptionError: the decay is unknown, or its radius missing, superfluous or of a wrong shape.
        BackendError: the named backend does not exist or cannot compute this decay.
    """
    check_maps("explicit_attention", v=v)
    if radius is not None:
        check_beside("explicit_attention", "v", v, {"radius": radius}, any_type=True)
    check_decay("explicit_attention", decay, radius, v.shape[1])
    check_number("explicit_attention", "offset", offset, least=0)
    check_mask("explicit_attention", mask, v)
    (v,) = autocast(v)
    run = BACKENDS.pick(backend, v, decay=decay, offset=offset, mask=mask)
    with without_autocast(v):
        return run(v, decay=decay, radius=radius, offset=offset, mask=mask)


def _native(v: Tensor, *, decay: Decay, radius: Tensor, offset: float, mask: None) -> Tensor:
    refuse_forward_mode("explicit_attention", v, radius)
    return native.explicit_attention(v, radius, decay, offset)


def _triton(v: Tensor, *, decay: Decay, radius: Tensor, offset: float, mask: None) -> Tensor:
    """Both axes of a channel in one kernel; what its rows are divided by is a product of the axes' row sums."""
    from foveal.kernels.triton import explicit as kernels

    refuse_forward_mode("explicit_attention", v, radius)
    if v.dim() == 4:
        return _triton(v.unsqueeze(3), decay=decay, radius=radius, offset=offset, mask=mask).squeeze(3)
    space, radius = tuple(v.shape[3:]), radius.to(torch.float32)
    rows, columns = (_toeplitz(axis_factor(decay, length, radius), (length,)) for length in space)
    weights = rows.sum(2)[:, :, None] * columns.sum(2)[:, None] + offset * math.prod(space)
    something = weights > torch.finfo(torch.float32).tiny
    return kernels.explicit_attention(v, rows, columns, something / torch.where(something, weights, 1.0), offset)


def _normalized(
    mix: Run, v: Tensor, *, decay: Decay, radius: Tensor | None, offset: float, mask: Tensor | None
) -> Tensor:
    """Divide the unnormalised sums by the sums of the weights, which are the same sums over a map of ones."""
    dtype, wide = v.dtype, wide_dtype(v)
    axes = list(range(3, v.dim()))
    v = v.to(wide)
    radius = radius.to(wide) if radius is not None else None
    ones = v.new_ones((1, 1, 1, *v.shape[3:]))
    if mask is not None:
        ones = mask[:, None, None].to(wide)
        v = v * ones
    weights, sums = mix(ones, decay=decay, radius=radius), mix(v, decay=decay, radius=radius)
    if offset:
        weights = weights + offset * ones.sum(axes, keepdim=True)
        sums = sums + offset * v.sum(axes, keepdim=True)
    # Nothing to attend to, or, with a radius near zero and no offset, nothing but keys too far to count.
    something = weights > torch.finfo(wide).tiny
    return (sums * something / torch.where(something, weights, 1.0)).to(dtype)


def _mean(v: Tensor, *, decay: Decay, radius: Tensor | None, offset: float, mask: Tensor | None) -> Tensor:
    """Equal weights, whatever the offset."""
    axes = list(range(3, v.dim()))
    if mask is None:
        mean = v.mean(axes, keepdim=True, dtype=wide_dtype(v))
    else:
        seen = mask[:, None, None].to(wide_dtype(v))
        mean = (v * seen).sum(axes, keepdim=True) / seen.sum(axes, keepdim=True).clamp(min=1)
    return mean.to(v.dtype).expand(v.shape).contiguous()


def _separable(v: Tensor, *, decay: Decay, radius: Tensor) -> Tensor:
    """One small matrix an axis."""
    space = tuple(v.shape[3:])
    for axis, length in enumerate(space):
        factor = _toeplitz(axis_factor(decay, length, radius), (length,))
        after = math.prod(space[axis + 1 :])
        if after == 1:
            v = v.movedim(3 + axis, -1)
            v = (v @ _for_heads(factor, v.dim())).movedim(-1, 3 + axis)
        else:
            flat = v.reshape(*v.shape[:2], v.shape[2] * math.prod(space[:axis]), length, after)
            mixed = _for_heads(factor, 5) @ flat
            v = mixed.reshape(*mixed.shape[:2], *v.shape[2:])
    return v


def _for_heads(factor: Tensor, dims: int) -> Tensor:
    """A shared matrix stays plain, so that all heads go through one product."""
    return factor[0] if factor.shape[0] == 1 else factor.reshape(-1, *[1] * (dims - 4), *factor.shape[1:])


def _toeplitz(values: Tensor, space: Sequence[int]) -> Tensor:
    """``(heads, n, n)`` of G from ``(heads, *(2 L - 1))``, entry (query, key) at offset key - query."""
    for axis, length in enumerate(space):
        values = runs(values, 1 + axis, length).flip(1 + axis)
    return values.reshape(values.shape[0], math.prod(space), -1)


def _dense(v: Tensor, *, decay: Decay, radius: Tensor | None) -> Tensor:
    space = tuple(v.shape[3:])
    matrix = _toeplitz(kernel(decay, space, radius, v), space)
    return (v.flatten(3) @ (matrix[0] if matrix.shape[0] == 1 else matrix)).unflatten(3, space)


def _fft(v: Tensor, *, decay: Decay, radius: Tensor | None) -> Tensor:
    """G is a convolution: circular over at least 2 L - 1 positions an axis, where nothing wraps into the map."""
    space = tuple(v.shape[3:])
    sizes = [_fast_size(2 * length - 1) for length in space]
    axes = list(range(3, v.dim()))
    spectrum = torch.fft.rfftn(kernel(decay, space, radius, v)[None, :, None], sizes, axes)
    mixed = torch.fft.irfftn(torch.fft.rfftn(v, sizes, axes) * spectrum, sizes, axes)
    for axis, length in enumerate(space):
        mixed = mixed.narrow(3 + axis, length - 1, length)
    return mixed


def _fast_size(least: int) -> int:
    """The next even number without prime factors above 5."""
    size = least + least % 2
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 2


def attention_row(
    decay: Decay, space: Sequence[int], radius: Tensor | None, offset: float, at: Sequence[int], like: Tensor
) -> Tensor:
    """``(heads or 1, *space)``: the row of Norm(G + offset) at one position, in closed form."""
    row = kernel(decay, space, radius, like)
    for axis, (length, position) in enumerate(zip(space, at, strict=True)):
        row = row.narrow(1 + axis, length - 1 - position, length)
    row = row + offset
    return row / row.sum(list(range(1, row.dim())), keepdim=True)


def reference(v: Tensor, *, decay: Decay, radius: Tensor | None, offset: float, mask: Tensor | None) -> Tensor:
    """The definition: every pair's distance, the (n, n) matrix, its rows divided by their sums."""
    space = tuple(v.shape[3:])
    wide = wide_dtype(v)
    lengths = torch.tensor(space, dtype=wide, device=v.device)
    points = torch.cartesian_prod(*[torch.arange(size, device=v.device) for size in space]).reshape(-1, len(space))
    gaps = (points[:, None] - points[None, :]).to(wide)
    euclid = gaps.square().sum(-1).sqrt() / lengths.square().sum().sqrt()
    if decay in LEARNABLE:
        assert radius is not None
        sigma = radius.to(wide).reshape(-1, 1, 1)
        scaled = gaps / lengths
        matrix = {
            "gaussian": torch.exp(-scaled.square().sum(-1) / (2 * (sigma.square() + 1e-6))),
            "euclidean": torch.exp(-scaled.square().sum(-1).sqrt() / (sigma.abs() + 1e-6)),
            "manhattan": torch.exp(-scaled.abs().sum(-1) / (sigma.abs() + 1e-6)),
        }[decay]
    else:
        matrix = {
            "uniform": torch.ones_like(euclid),
            "linear": 1 - euclid,
            "cosine": 0.5 * (1 + torch.cos(math.pi * euclid)),
        }[decay][None]
    weights = matrix[None] + offset
    if mask is not None:
        weights = weights * mask.flatten(1)[:, None, None].to(wide)
    total = weights.sum(-1, keepdim=True)
    weights = weights / torch.where(total > torch.finfo(wide).tiny, total, torch.inf)
    return (v.flatten(3) @ weights.mT.to(v.dtype)).unflatten(3, space)


# Costs of one sample in multiply-adds of a matrix product; the choice must not depend on the batch, or an exported
# program could not take another one. An entry of the dense matrix, built once for a batch, and a butterfly of a
# transform are weighted as that many multiply-adds: rough weights, which only move where one takes over from another.
DENSE_ENTRY = 4
BUTTERFLY = 12


def _channels(v: Tensor) -> int:
    return v.shape[1] * v.shape[2]


def _separable_cost(v: Tensor, **_: Any) -> float:
    return _channels(v) * math.prod(v.shape[3:]) * sum(v.shape[3:])


def _native_cost(v: Tensor, **_: Any) -> float:
    # Where the whole matrix has no more entries in a row than the axes' matrices, one product costs no more.
    return _separable_cost(v) / (2 if math.prod(v.shape[3:]) >= sum(v.shape[3:]) else 1)


def _dense_cost(v: Tensor, **_: Any) -> float:
    return math.prod(v.shape[3:]) ** 2 * (_channels(v) + DENSE_ENTRY)


def _fft_cost(v: Tensor, **_: Any) -> float:
    size = math.prod([_fast_size(2 * length - 1) for length in v.shape[3:]])
    return (2 * _channels(v) + 1) * size * math.log2(size) * BUTTERFLY


def _mean_cost(v: Tensor, **_: Any) -> float:
    return _channels(v) * math.prod(v.shape[3:])


def _only(names: tuple[str, ...], why: str) -> Any:
    def why_not(v: Tensor, *, decay: Decay, **_: Any) -> str | None:
        return None if decay in names else f"decay {decay!r} {why}"

    return why_not


def _native_why_not(v: Tensor, *, decay: Decay, mask: Tensor | None, **_: Any) -> str | None:
    return native.why_not(v, decay=decay, mask=mask)


def _triton_why_not(v: Tensor, *, decay: Decay, mask: Tensor | None, **_: Any) -> str | None:
    return explicit_why_not(v, decay=decay, mask=mask)


def _fft_why_not(v: Tensor, *, offset: float, mask: Tensor | None, **_: Any) -> str | None:
    if open_sizes(v.shape[3:]):
        return "the length of a transform must be a number, not open in an exported program"
    if mask is not None and not offset:
        return "with a mask and no offset all weights of a row may be smaller than a transform's rounding"
    return None


BACKENDS = Backends(
    "explicit_attention",
    Backend("mean", _mean, cost=_mean_cost, why_not=_only(("uniform",), "is not uniform")),
    Backend(
        "separable",
        partial(_normalized, _separable),
        cost=_separable_cost,
        why_not=_only(SEPARABLE, "is no product over the axes"),
    ),
    Backend("native", _native, cost=_native_cost, why_not=_native_why_not),
    Backend("triton", _triton, cost=_separable_cost, why_not=_triton_why_not, by_name=gpu.UNMEASURED),
    Backend("fft", partial(_normalized, _fft), cost=_fft_cost, why_not=_fft_why_not),
    Backend("dense", partial(_normalized, _dense), cost=_dense_cost),
    reference=reference,
)


@dataclass(frozen=True)
class _Map:
    """What the costs read of a tensor: asking for them with a real one would cost more than a small map."""

    shape: tuple[int, ...]
    device: torch.device


def mixing_macs(decay: Decay, space: Sequence[int], channels: int, heads: int = 1) -> int:
    """Multiply-adds of the matrix products that mix this many channels of one image, and its map of ones, exactly.

    Means and transforms have none: they are counted in other units. The native kernel counts as separable.
    """
    space = example_sizes(space)
    shape = _Map((1, heads, channels // heads, *space), torch.device("meta"))
    chosen = BACKENDS.cheapest(shape, decay=decay, offset=1.0, mask=None)
    per_channel = {"separable": sum(space) * math.prod(space), "dense": math.prod(space) ** 2}.get(chosen, 0)
    return per_channel * (channels + heads)
