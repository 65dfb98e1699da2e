"""Dot-product attention between all positions, with relative positions along each axis.

Papers: Wang et al., Non-local Neural Networks (2018), equations 1 to 4; Bello et al., Attention Augmented
Convolutional Networks (2019), equations 1 to 5. Departures: none; masks, one and three dimensions go beyond them.
Symbols: n queries, m keys, d and e channels per head of keys and values, L = length of an axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import flop_counter

from foveal.errors import OptionError
from foveal.functional.backends import Backend, Backends
from foveal.functional.efficient import efficient_attention
from foveal.functional.inputs import (
    autocast,
    check_choice,
    check_equal,
    check_maps,
    check_mask,
    check_number,
    on_last,
    wide_dtype,
)
from foveal.functional.relative import check_relative, list_tables
from foveal.functional.sizes import open_sizes, runs
from foveal.kernels.pytorch.local import query_slices

Normalization = Literal["softmax", "scaling"]


def dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    normalization: Normalization = "softmax",
    relative: Sequence[Tensor] | None = None,
    scale: float | None = None,
    mask: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Softmax of scale * (q.k + q.r) over all positions, times v: 2 n m (d + e) operations, O(n) memory.

    Args:
        q: ``(batch, heads, d, *space)``, one to three space axes.
        k: ``(batch, heads, d, *key_space)``; with ``relative`` the spaces must be equal.
        v: ``(batch, heads, e, *key_space)``.
        normalization: ``"softmax"``, or ``"scaling"``: divided by the number of keys attended to, which costs
            O(n d e) because it is computed by efficient attention, its equal.
        relative: one table an axis, ``(heads or 1, 2 L - 1, depth)``, offset -(L - 1) first, an offset being key
            minus query. Depths that equal d let every axis see the whole query (attention augmented convolution);
            depths that sum to d split it among the axes in order.
        scale: factor on the logits; d ** -0.5 when None. ``"scaling"`` takes none.
        mask: boolean ``(batch, *key_space)``, True for positions that may be attended to.
        backend: one of ``BACKENDS.names()``; None takes the one that fits.

    Returns:
        ``(batch, heads, e, *space)``; zeros where there is nothing to attend to.

    Raises:
        ShapeError: shapes disagree.
        OptionError: ``normalization`` is unknown, or ``scale`` is given with ``"scaling"``.
        BackendError: the named backend does not exist or computes the other normalization.
    """
    tables = list_tables("dot_product_attention", relative)
    _check(q, k, v, normalization, tables, scale, mask)
    q, k, v, *tables = autocast(q, k, v, *tables)
    run = BACKENDS.pick(backend, q, k, v, normalization=normalization)
    scale = q.shape[2] ** -0.5 if scale is None else scale
    return run(q, k, v, normalization=normalization, tables=tables, scale=scale, mask=mask)


def _check(
    q: Tensor, k: Tensor, v: Tensor, normalization: str, tables: list[Tensor], scale: float | None, mask: Tensor | None
) -> None:
    check_maps("dot_product_attention", q=q, k=k, v=v)
    check_equal("dot_product_attention", "batch, heads and depth of q and k", q=q.shape[:3], k=k.shape[:3])
    check_equal("dot_product_attention", "batch and heads", q=q.shape[:2], v=v.shape[:2])
    check_equal("dot_product_attention", "space of k and v", k=k.shape[3:], v=v.shape[3:])
    check_choice("dot_product_attention", "normalization", normalization, ("softmax", "scaling"))
    check_mask("dot_product_attention", mask, k)
    if scale is not None:
        check_number("dot_product_attention", "scale", scale)
    if normalization == "scaling" and scale is not None:
        raise OptionError(
            f"dot_product_attention: normalization 'scaling' divides by the number of keys and takes no scale, "
            f"got {scale}. Leave it None, or multiply q."
        )
    if tables:
        check_equal("dot_product_attention", "with relative, the spaces of q and k", q=q.shape[3:], k=k.shape[3:])
        check_relative("dot_product_attention", q, tables, [2 * length - 1 for length in q.shape[3:]])


def relative_logits(q: Tensor, table: Tensor, axis: int) -> Tensor:
    """q.r along one axis, ``(batch, heads, *space, L)``: for every query one logit a coordinate of the key."""
    length = q.shape[3 + axis]
    before, after = math.prod(q.shape[3 : 3 + axis]), math.prod(q.shape[4 + axis :])
    # Row i of the table's windows, counted from the end, holds the offsets -i to L - 1 - i: those of query i.
    own = runs(table, 1, length).flip(1)
    flat = q.reshape(*q.shape[:3], before, length, after)
    logits = torch.einsum("bhdxiy,hidj->bhxiyj", flat, own.expand(q.shape[1], -1, -1, -1))
    return logits.reshape(*q.shape[:2], *q.shape[3:], length)


def with_positions(q: Tensor, k: Tensor, tables: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Flat queries ``(b, h, n, d')`` and keys whose products are q.k + q.r.

    A query carries its relative logits along each axis as extra features, a key the coordinates it has, one-hot:
    the product picks the logit of the key's row and column, and no (n, n) tensor exists.
    """
    space = q.shape[3:]
    queries, keys = [q.flatten(3).mT], [k.flatten(3).mT]
    for axis, (table, part) in enumerate(zip(tables, query_slices(tables, q.shape[2]), strict=True)):
        queries.append(relative_logits(q[:, :, part], table, axis).flatten(2, 1 + len(space)))
        shape = [1] * len(space)
        shape[axis] = space[axis]
        index = torch.arange(space[axis], device=q.device)
        one_hot = (index.reshape(shape).expand(space).flatten()[:, None] == index).to(q.dtype)
        keys.append(one_hot.expand(*q.shape[:2], -1, -1))
    return torch.cat(queries, -1), torch.cat(keys, -1)


def attention_row(
    q: Tensor,
    k: Tensor,
    *,
    at: Sequence[int],
    normalization: Normalization,
    tables: Sequence[Tensor] = (),
    scale: float | None = None,
) -> Tensor:
    """``(batch, heads, *key_space)``: the weights of the query at one position."""
    own, axes = q[on_last(at)], len(at)
    logits = torch.einsum("bhd,bhd...->bh...", own, k)
    for axis, (table, part) in enumerate(zip(tables, query_slices(tables, q.shape[2]), strict=True)):
        length = q.shape[3 + axis]
        rows = table.expand(q.shape[1], -1, -1).narrow(1, length - 1 - at[axis], length)
        along = torch.einsum("bhd,hld->bhl", own[:, :, part], rows)
        logits = logits + along.reshape(*along.shape[:2], *[-1 if a == axis else 1 for a in range(axes)])
    if normalization == "scaling":
        return logits / math.prod(k.shape[3:])
    scale = q.shape[2] ** -0.5 if scale is None else scale
    return (logits * scale).flatten(2).softmax(-1, dtype=wide_dtype(q)).to(q.dtype).reshape(logits.shape)


def _sdpa(
    q: Tensor, k: Tensor, v: Tensor, *, tables: Sequence[Tensor], scale: float, mask: Tensor | None, **_: Any
) -> Tensor:
    queries, keys = with_positions(q, k, tables)
    values = v.flatten(3).mT
    # Fused attention wants one depth for all three, each position's features side by side in memory; without either
    # torch would fall back to storing the (n, m) logits.
    # Not max: in an exported program the sizes are open, and a depth of queries grows with them.
    depths = queries.shape[-1], values.shape[-1]
    # The compiler of torch 2.10 traces no sym_max of numbers.
    depth = cast(int, torch.sym_max(*depths)) if open_sizes(depths) else max(depths)
    queries, keys, wide = (F.pad(x, (0, depth - x.shape[-1])).contiguous() for x in (queries, keys, values))
    allowed = None
    if mask is not None:
        some = mask.flatten(1).any(1)
        allowed = (mask.flatten(1) | ~some[:, None])[:, None, None]
    out = F.scaled_dot_product_attention(queries, keys, wide, attn_mask=allowed, scale=scale)[..., : values.shape[-1]]
    if mask is not None:
        out = out * some[:, None, None, None]
    return out.mT.unflatten(3, q.shape[3:])


def _linear(q: Tensor, k: Tensor, v: Tensor, *, tables: Sequence[Tensor], mask: Tensor | None, **_: Any) -> Tensor:
    space, key_mask = q.shape[3:], mask.flatten(1) if mask is not None else None
    if tables:
        queries, keys = (x.mT for x in with_positions(q, k, tables))
    else:
        queries, keys = q.flatten(3), k.flatten(3)
    out = efficient_attention(queries, keys, v.flatten(3), normalization="scaling", mask=key_mask)
    return out.unflatten(3, space)


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    normalization: Normalization,
    tables: Sequence[Tensor],
    scale: float,
    mask: Tensor | None,
) -> Tensor:
    """The definition, every (n, m) logit written out."""
    logits = torch.einsum("bhdn,bhdm->bhnm", q.flatten(3), k.flatten(3))
    space = q.shape[3:]
    for axis, (table, part) in enumerate(zip(tables, query_slices(tables, q.shape[2]), strict=True)):
        index = torch.arange(space[axis], device=q.device)
        gap = index[None, :] - index[:, None] + space[axis] - 1
        rows = torch.cartesian_prod(*[torch.arange(s, device=q.device) for s in space]).reshape(-1, len(space))
        pairs = gap[rows[:, axis]][:, rows[:, axis]]
        chosen = table.expand(q.shape[1], -1, -1)[:, pairs]
        logits = logits + torch.einsum("bhdn,hnmd->bhnm", q[:, :, part].flatten(3), chosen)
    seen = logits.new_ones(k.shape[0], logits.shape[3], dtype=torch.bool) if mask is None else mask.flatten(1)
    seen = seen[:, None, None]
    if normalization == "softmax":
        weights = (logits * scale).masked_fill(~seen, -math.inf)
        weights = weights.softmax(-1, dtype=wide_dtype(q)).nan_to_num(0.0).to(q.dtype)
    else:
        weights = logits.masked_fill(~seen, 0.0) / seen.sum(-1, keepdim=True).clamp(min=1)
    return torch.einsum("bhnm,bhem->bhen", weights, v.flatten(3)).unflatten(3, space)


def _count_fused_attention() -> None:
    """Older torch counts its fused attention on CPUs as nothing; give it the formula of its siblings."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    if fused not in flop_counter.flop_registry:

        @flop_counter.register_flop_formula(fused)
        def _(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
            return flop_counter.sdpa_flop_count(q, k, v)

        @flop_counter.register_flop_formula(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward)
        def _(grad: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
            return flop_counter.sdpa_backward_flop_count(grad, q, k, v)


_count_fused_attention()


def _cost(q: Tensor, k: Tensor, v: Tensor, **_: Any) -> float:
    n, m = math.prod(q.shape[3:]), math.prod(k.shape[3:])
    return q.shape[1] * n * m * (q.shape[2] + v.shape[2])


def _only(wanted: str) -> Any:
    def why_not(q: Tensor, k: Tensor, v: Tensor, *, normalization: str, **_: Any) -> str | None:
        return None if normalization == wanted else f"it computes normalization {wanted!r} only"

    return why_not


BACKENDS = Backends(
    "dot_product_attention",
    Backend("sdpa", _sdpa, cost=_cost, why_not=_only("softmax")),
    Backend("linear", _linear, cost=_cost, why_not=_only("scaling")),
    reference=reference,
)
