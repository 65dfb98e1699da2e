"""Efficient attention: summarise all positions in a small context, then let every query read it.

Paper: Shen et al., Efficient Attention: Attention with Linear Complexities (2018), section 3.2, equations 3 to 6.
Departures: none; heads, masks and unequal query and key maps go beyond the paper.
Symbols: n queries, m keys, d and e channels per head of keys and values.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from foveal.functional.backends import Backend, Backends
from foveal.functional.inputs import (
    autocast,
    check_choice,
    check_equal,
    check_maps,
    check_mask,
    refuse_forward_mode,
    wide_dtype,
)
from foveal.kernels.cpu import efficient as native
from foveal.kernels.triton import load as gpu

Normalization = Literal["softmax", "scaling"]


def efficient_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    normalization: Normalization = "softmax",
    mask: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """rho_q(Q) (rho_k(K)^T V): 2 (n + m) d e operations, or 2 n m (d + e) in the other order where that is less.

    Args:
        q: ``(batch, heads, d, *space)``, one to three space axes.
        k: ``(batch, heads, d, *key_space)``.
        v: ``(batch, heads, e, *key_space)``.
        normalization: ``"softmax"``: queries over their channels, keys over positions; ``"scaling"``: both divided
            by the square root of the number of keys attended to, which equals dot-product attention divided by it.
        mask: boolean ``(batch, *key_space)``, True for positions that may be attended to.
        backend: one of ``BACKENDS.names()``; None takes the order that costs less, natively where that is possible.
            All are exact.

    Returns:
        ``(batch, heads, e, *space)``; zeros where there is nothing to attend to.

    Raises:
        ShapeError: shapes disagree.
        OptionError: ``normalization`` is unknown.
        BackendError: the named backend does not exist or cannot run the call.
    """
    check_maps("efficient_attention", q=q, k=k, v=v)
    check_equal("efficient_attention", "batch, heads and depth of q and k", q=q.shape[:3], k=k.shape[:3])
    check_equal("efficient_attention", "batch, heads and space of k and v", k=_but_depth(k), v=_but_depth(v))
    check_choice("efficient_attention", "normalization", normalization, ("softmax", "scaling"))
    check_mask("efficient_attention", mask, k)
    q, k, v = autocast(q, k, v)
    run = BACKENDS.pick(backend, q, k, v)
    return run(q, k, v, normalization=normalization, mask=mask)


def normalize_queries(q: Tensor, normalization: Normalization) -> Tensor:
    """rho_q of ``(batch, heads, d, n)``; the scaling is done once, on the keys."""
    if normalization == "scaling":
        return q
    return q.softmax(2, dtype=wide_dtype(q)).to(q.dtype)


def normalize_keys(k: Tensor, normalization: Normalization, mask: Tensor | None) -> Tensor:
    """rho_k of ``(batch, heads, d, m)``; ``mask`` is ``(batch, *key_space)``. Masked keys get exact zeros."""
    seen = mask.flatten(1)[:, None, None] if mask is not None else None
    if normalization == "scaling":
        if seen is None:
            return k / k.shape[3]
        return k.masked_fill(~seen, 0.0) / seen.sum(3, keepdim=True).clamp(min=1)
    if seen is None:
        return k.softmax(3, dtype=wide_dtype(k)).to(k.dtype)
    # The lowest finite number keeps a sample without any key free of NaN; its weights become zeros below.
    weights = k.masked_fill(~seen, torch.finfo(k.dtype).min).softmax(3, dtype=wide_dtype(k))
    return weights.masked_fill(~seen, 0.0).to(k.dtype)


def context(k: Tensor, v: Tensor, *, normalization: Normalization = "softmax", mask: Tensor | None = None) -> Tensor:
    """rho_k(K)^T V: ``(batch, heads, d, e)`` from flat keys ``(batch, heads, d, m)`` and values.

    ``v`` may also be one map for all heads, ``(batch, 1, e, m)``: layers put their input there and apply the value
    projection to the context.
    """
    weights = normalize_keys(k, normalization, mask)
    if v.shape[1] == 1 and k.shape[1] > 1:
        return (weights.flatten(1, 2) @ v.squeeze(1).mT).unflatten(1, k.shape[1:3])
    return weights @ v.mT


def _native(q: Tensor, k: Tensor, v: Tensor, *, normalization: Normalization, mask: Tensor | None) -> Tensor:
    """The context first, in two passes that keep blocks of positions in the cache."""
    refuse_forward_mode("efficient_attention", q, k, v)
    seen = mask.flatten(1).contiguous() if mask is not None else None
    held = native.context(k.flatten(3), v.flatten(3), seen, normalization == "scaling")
    weights = native.PLAIN if normalization == "scaling" else native.SOFTMAX
    return native.read(q.flatten(3), held, weights=weights).unflatten(3, q.shape[3:])


def _triton(q: Tensor, k: Tensor, v: Tensor, *, normalization: Normalization, mask: Tensor | None) -> Tensor:
    """The context first, in one pass over the keys and one over the queries."""
    from foveal.kernels.triton import efficient as kernels

    refuse_forward_mode("efficient_attention", q, k, v)
    seen = mask.flatten(1) if mask is not None else None
    out = kernels.efficient_attention(q.flatten(3), k.flatten(3), v.flatten(3), seen, normalization == "scaling")
    return out.unflatten(3, q.shape[3:])


def _context_first(q: Tensor, k: Tensor, v: Tensor, *, normalization: Normalization, mask: Tensor | None) -> Tensor:
    held = context(k.flatten(3), v.flatten(3), normalization=normalization, mask=mask)
    read = held.mT @ normalize_queries(q.flatten(3), normalization)
    return read.unflatten(3, q.shape[3:])


def _map_first(q: Tensor, k: Tensor, v: Tensor, *, normalization: Normalization, mask: Tensor | None) -> Tensor:
    """The n x m map first: less work where there are fewer positions than channels."""
    weights = normalize_queries(q.flatten(3), normalization).mT @ normalize_keys(k.flatten(3), normalization, mask)
    return (v.flatten(3) @ weights.mT).unflatten(3, q.shape[3:])


def reference(q: Tensor, k: Tensor, v: Tensor, *, normalization: Normalization, mask: Tensor | None) -> Tensor:
    """The definition, every implied weight written out: ``(n, m)`` a head."""
    space, q, k, v = q.shape[3:], q.flatten(3), k.flatten(3), v.flatten(3)
    seen = torch.ones_like(k[:, 0, 0], dtype=torch.bool) if mask is None else mask.flatten(1)
    seen = seen[:, None, None]
    if normalization == "softmax":
        rho_q = q.softmax(2, dtype=wide_dtype(q)).to(q.dtype)
        rho_k = k.masked_fill(~seen, -math.inf).softmax(3, dtype=wide_dtype(k)).nan_to_num(0.0).to(k.dtype)
    else:
        root = seen.sum(3, keepdim=True).clamp(min=1).to(wide_dtype(q)).sqrt().to(q.dtype)
        rho_q, rho_k = q / root, k.masked_fill(~seen, 0.0) / root
    implied = torch.einsum("bhdn,bhdm->bhnm", rho_q, rho_k)
    return torch.einsum("bhnm,bhem->bhen", implied, v).unflatten(3, space)


def _but_depth(x: Tensor) -> tuple[int, ...]:
    return (*x.shape[:2], *x.shape[3:])


def _context_cost(q: Tensor, k: Tensor, v: Tensor, **_: Any) -> float:
    heads, n, m, d, e = _sizes(q, k, v)
    return heads * d * e * (n + m)


def _map_cost(q: Tensor, k: Tensor, v: Tensor, **_: Any) -> float:
    heads, n, m, d, e = _sizes(q, k, v)
    return heads * n * m * (d + e)


def _sizes(q: Tensor, k: Tensor, v: Tensor) -> tuple[int, int, int, int, int]:
    return q.shape[1], math.prod(q.shape[3:]), math.prod(k.shape[3:]), q.shape[2], v.shape[2]


BACKENDS = Backends(
    "efficient_attention",
    Backend("native", _native, cost=_context_cost, why_not=native.why_not),
    Backend("triton", _triton, cost=_context_cost, why_not=gpu.why_not, by_name=gpu.UNMEASURED),
    Backend("context", _context_first, cost=_context_cost),
    Backend("map", _map_first, cost=_map_cost),
    reference=reference,
)
