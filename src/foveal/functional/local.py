"""Local attention: stand-alone self-attention over a window around every position.

Paper: Ramachandran et al., Stand-Alone Self-Attention in Vision Models (2019), section 3, equations 2 and 3.
Departures: none; ``border="mask"``, ``dilation``, ``scale``, one and three dimensions go beyond the paper.
Symbols: n positions, k = kernel_size, d and e channels per head of queries and values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.errors import ShapeError
from foveal.functional.backends import Backend, Backends
from foveal.functional.inputs import (
    autocast,
    check_choice,
    check_equal,
    check_maps,
    check_mask,
    check_number,
    on_last,
    refuse_forward_mode,
    wide_dtype,
)
from foveal.functional.relative import check_relative, list_tables
from foveal.kernels.cpu import local as native
from foveal.kernels.onnx import why_not_in_onnx
from foveal.kernels.pytorch import local as tiled
from foveal.kernels.triton import load as gpu
from foveal.kernels.triton.fits import local_why_not

Border = Literal["zero", "mask"]


def local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    kernel_size: int | Sequence[int],
    relative: Sequence[Tensor] | None = None,
    dilation: int | Sequence[int] = 1,
    scale: float = 1.0,
    border: Border = "zero",
    mask: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Softmax over the window of scale * (q.k + q.r), times v: 2 n k^2 (2 d + e) operations, O(n) memory.

    Args:
        q: ``(batch, heads, d, *space)``, one to three space axes.
        k: ``(batch, heads, d, *space)``.
        v: ``(batch, heads, e, *space)``.
        kernel_size: odd length of the window, one for all axes or one an axis.
        relative: one table an axis, ``(heads or 1, kernel_size, depth)``, offset -(k // 2) first, an offset being
            key minus query. Depths that sum to d split the query among the axes in order (the paper); depths that
            equal d let every axis see the whole query (attention augmented convolution).
        dilation: step between the window's positions, one or one an axis.
        scale: factor on the logits; the paper has none.
        border: ``"zero"``: positions outside the map are keys and values of zero and take part (the paper's
            padding); ``"mask"``: they take no part.
        mask: boolean ``(batch, *space)``, True for positions that may be attended to.
        backend: one of ``BACKENDS.names()``; None takes the fastest that fits.

    Returns:
        ``(batch, heads, e, *space)``; zeros where a query has nothing to attend to.

    Raises:
        ShapeError: shapes disagree, or a window is even.
        OptionError: ``border`` is unknown.
        BackendError: the named backend does not exist.
    """
    check_maps("local_attention", q=q, k=k, v=v)
    axes = q.dim() - 3
    window, steps = _per_axis("kernel_size", kernel_size, axes), _per_axis("dilation", dilation, axes)
    tables = list_tables("local_attention", relative)
    _check(q, k, v, window, steps, tables, border, mask, scale)
    q, k, v, *tables = autocast(q, k, v, *tables)
    run = BACKENDS.pick(backend, q, k, v, kernel_size=window)
    return run(q, k, v, tables, mask, window, steps, float(scale), border == "mask")


def packed_local_attention(
    qkv: Tensor,
    *,
    kernel_size: Sequence[int],
    relative: Sequence[Tensor] | None,
    dilation: Sequence[int],
    scale: float,
    border: Border,
) -> Tensor:
    """``local_attention`` of what one product made, so that its gradient need not be put together; see ``packs``.

    Args:
        qkv: ``(batch, 3 heads, d, *space)``: the heads of queries, keys and values, one after the other.
        kernel_size: as in ``local_attention``, one an axis, like ``dilation``.
    """
    qkv, *tables = autocast(qkv, *(relative or ()))
    q, k, v = qkv.chunk(3, 1)
    window, steps = list(kernel_size), list(dilation)
    _check(q, k, v, window, steps, tables, border, None, scale)
    refuse_forward_mode("local_attention", qkv, *tables)
    return native.local_attention(qkv, None, None, tables, None, window, steps, float(scale), border == "mask")


def packs(backend: str | None, x: Tensor, kernel_size: Sequence[int]) -> bool:
    """Whether ``packed_local_attention`` takes the projections of a map."""
    return backend in (None, "native") and native.why_not(autocast(x)[0], None, None, kernel_size) is None


def _per_axis(name: str, value: int | Sequence[int], axes: int) -> list[int]:
    values: list[Any] = list(value) if isinstance(value, (tuple, list)) else [value] * axes
    if len(values) != axes or not all(isinstance(x, int) and not isinstance(x, bool) and 0 < x < 2**31 for x in values):
        raise ShapeError(
            f"local_attention: {name} must be a positive integer, or one for each of the {axes} space axes, "
            f"got {value!r}."
        )
    return values


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: list[int],
    steps: list[int],
    tables: list[Tensor],
    border: str,
    mask: Tensor | None,
    scale: float,
) -> None:
    check_equal("local_attention", "the shapes of q and k", q=q.shape, k=k.shape)
    check_equal("local_attention", "batch and heads", q=q.shape[:2], v=v.shape[:2])
    check_equal("local_attention", "space", q=q.shape[3:], v=v.shape[3:])
    check_choice("local_attention", "border", border, ("zero", "mask"))
    check_number("local_attention", "scale", scale)
    check_mask("local_attention", mask, k)
    for size in window:
        if size % 2 == 0:
            raise ShapeError(
                f"local_attention: kernel_size must be odd, got {size}. Use {size - 1 or 1} or {size + 1}; "
                "even windows have no centre."
            )
    if tables:
        check_relative("local_attention", q, tables, window)


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tables: Sequence[Tensor],
    mask: Tensor | None,
    window: Sequence[int],
    dilation: Sequence[int],
    scale: float,
    masked_border: bool,
) -> Tensor:
    """The definition: every key of every window copied out, k^2 times the memory of keys and values."""
    axes = len(window)
    half = [w // 2 * d for w, d in zip(window, dilation, strict=True)]
    pad = [side for p in reversed(half) for side in (p, p)]

    def windows(x: Tensor) -> Tensor:
        """``(b, h, d, *space)`` to ``(b, h, d, *space, positions of the window)``."""
        x = F.pad(x, pad)
        for axis, (w, step) in enumerate(zip(window, dilation, strict=True)):
            x = x.unfold(3 + axis, (w - 1) * step + 1, 1)[..., ::step]
        return x.flatten(3 + axes)

    logits = (q.unsqueeze(-1) * windows(k)).sum(2)
    for axis, (table, part) in enumerate(zip(tables, tiled.query_slices(tables, q.shape[2]), strict=True)):
        own = torch.einsum("bhdn,hod->bhno", q[:, :, part].flatten(3), table.expand(q.shape[1], -1, -1))
        shape = [1] * axes
        shape[axis] = window[axis]
        own = own.reshape(*own.shape[:3], *shape).expand(-1, -1, -1, *window)
        logits = logits + own.reshape(logits.shape)
    logits = logits * scale
    if mask is not None or masked_border:
        inside = q.new_ones((q.shape[0], *q.shape[3:]), dtype=torch.bool) if mask is None else mask
        # Positions outside the map are padded with zeros: dropped where the border is masked, kept otherwise.
        dropped = ~inside if not masked_border else inside
        seen = windows(dropped[:, None, None].to(q.dtype)).squeeze(2) > 0
        seen = seen if masked_border else ~seen
        weights = logits.masked_fill(~seen, -math.inf).softmax(-1, dtype=wide_dtype(q)).nan_to_num(0.0).to(q.dtype)
    else:
        weights = logits.softmax(-1, dtype=wide_dtype(q)).to(q.dtype)
    return (weights.unsqueeze(2) * windows(v)).sum(-1)


def attention_row(
    q: Tensor,
    k: Tensor,
    *,
    at: Sequence[int],
    kernel_size: Sequence[int],
    relative: Sequence[Tensor],
    dilation: Sequence[int],
    scale: float,
    border: Border,
) -> Tensor:
    """``(batch, heads, *space)``: the weights of one query on the map, computed from its window alone.

    With the border ``"zero"`` the padding takes what is missing to a sum of 1.
    """
    axes, space = len(at), q.shape[3:]
    half = [w // 2 * d for w, d in zip(kernel_size, dilation, strict=True)]
    pad = [side for p in reversed(half) for side in (p, p)]
    keys, inside = F.pad(k, pad), F.pad(k.new_ones((1, 1, *space)), pad)
    for axis, (p, w, step) in enumerate(zip(at, kernel_size, dilation, strict=True)):
        keys = keys.narrow(3 + axis, p, (w - 1) * step + 1)
        inside = inside.narrow(2 + axis, p, (w - 1) * step + 1)
    every = on_last(slice(None, None, step) for step in dilation)
    keys, inside = keys[every], inside[every] > 0
    own = q[on_last(at)]
    logits = torch.einsum("bhd,bhd...->bh...", own, keys)
    for axis, (table, part) in enumerate(zip(relative, tiled.query_slices(relative, q.shape[2]), strict=True)):
        along = torch.einsum("bhd,hod->bho", own[:, :, part], table.expand(q.shape[1], -1, -1))
        logits = logits + along.reshape(*along.shape[:2], *[-1 if a == axis else 1 for a in range(axes)])
    if border == "mask":
        logits = logits.masked_fill(~inside, -math.inf)
    weights = (logits * scale).flatten(2).softmax(-1, dtype=wide_dtype(q)).to(q.dtype).reshape(logits.shape)
    padded = weights.new_zeros((*weights.shape[:2], *(s + 2 * p for s, p in zip(space, half, strict=True))))
    window = on_last(slice(p, p + (w - 1) * d + 1, d) for p, w, d in zip(at, kernel_size, dilation, strict=True))
    padded[window] = weights
    return padded[on_last(slice(p, p + s) for s, p in zip(space, half, strict=True))]


def _native(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
    refuse_forward_mode("local_attention", q, k, v, *rest[0])
    return native.local_attention(q, k, v, *rest)


def _triton(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
    from foveal.kernels.triton import local as kernels

    refuse_forward_mode("local_attention", q, k, v, *rest[0])
    return kernels.local_attention(q, k, v, *rest)


def _tiled(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
    refuse_forward_mode("local_attention", q, k, v, *rest[0])
    return tiled.local_attention(q, k, v, *rest)


def _pairs(q: Tensor, k: Tensor, v: Tensor, *, kernel_size: Sequence[int]) -> int:
    return math.prod(kernel_size) * (math.prod(q.shape[1:]) + math.prod(v.shape[1:]))


def _tiled_why_not(*_: Any, **__: Any) -> str | None:
    return why_not_in_onnx()


def _windows_why_not(*_: Any, **__: Any) -> str | None:
    return None if why_not_in_onnx() else "it copies every window, for ONNX, which has no operator for them"


# Tiles compute most pairs of a query with the keys around its tile too: about four times the window's.
BACKENDS = Backends(
    "local_attention",
    Backend("native", _native, cost=_pairs, why_not=native.why_not),
    Backend("triton", _triton, cost=_pairs, why_not=local_why_not, by_name=gpu.UNMEASURED),
    Backend("tiled", _tiled, cost=lambda *maps, **window: 4 * _pairs(*maps, **window), why_not=_tiled_why_not),
    Backend("windows", reference, cost=_pairs, why_not=_windows_why_not),
    reference=reference,
)
