"""The double normalisation of offset attention, with and without the weights in memory.

Paper: Guo et al., PCT: Point Cloud Transformer (2021), equations 6 and 7, as in the authors' code: softmax of q_i.k_j
over j, then each j's weights divided by their sum over i plus 1e-9; out_j = sum_i v_i weight_ij. Departures: none.

The sum over i needs the softmax of every row first, so one pass over the logits cannot do. Two can: with
L_i = log sum_j exp(q_i.k_j), weight_ij is exp(q_i.k_j - L_i) over its sum over i, and each pass meets the logits in
slices. That is exact. Symbols: n points, d and e channels of keys and values, L as above.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from foveal.functional.inputs import autocast, wide_dtype, without_autocast

EPS = 1e-9
# Points up to which the n^2 weights of a cloud are kept: 16 MB in float32.
STORED = 2048
# Logits of one cloud met at once above that.
SLICE = 2**22


def offset_attention(q: Tensor, k: Tensor, v: Tensor, *, stored: bool | None = None) -> Tensor:
    """The doubly normalised sum of the values: 2 n^2 (d + e) operations, with the slices n^2 d more.

    Args:
        q: ``(batch, d, n)``.
        k: ``(batch, d, n)``, q itself in PCT.
        v: ``(batch, e, n)``.
        stored: whether the weights are held as a whole; None holds them up to ``STORED`` points.

    Returns:
        ``(batch, e, n)``.
    """
    q, k, v = autocast(q, k, v)
    n = q.shape[2]
    if n <= STORED if stored is None else stored:
        weights = (q.mT @ k).softmax(2, dtype=wide_dtype(q))
        with without_autocast(q):
            out = v @ weights.to(v.dtype) / (weights.sum(1, keepdim=True) + EPS)
        return out.to(v.dtype)
    total = _totals(q, k)
    length = max(1, SLICE // n)
    return torch.cat([_kept_small(_columns, q, part, v, total) for part in k.split(length, 2)], 2)


def offset_row(q: Tensor, k: Tensor, k_at: Tensor) -> Tensor:
    """The weights ``(batch, n)`` of the output whose key is ``k_at``, ``(batch, d)``, on all values."""
    weights = _weights(q, k_at[:, :, None], _totals(q, k))[:, :, 0]
    return (weights / (weights.sum(1, keepdim=True) + EPS)).to(q.dtype)


def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The definition as the paper writes it."""
    weights = (q.mT @ k).softmax(2)
    weights = weights / (EPS + weights.sum(1, keepdim=True))
    return v @ weights


def _totals(q: Tensor, k: Tensor) -> Tensor:
    """L of every row, ``(batch, n)``."""
    length = max(1, SLICE // q.shape[2])
    return torch.cat([_kept_small(_logsumexp, part, k) for part in q.split(length, 2)], 1)


def _kept_small(run: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """What a slice gives; its logits are computed again in the backward pass instead of kept."""
    if not torch.is_grad_enabled() or not any(x.requires_grad for x in tensors):
        return run(*tensors)
    out: Tensor = checkpoint(run, *tensors, use_reentrant=False, preserve_rng_state=False)
    return out


def _logsumexp(q: Tensor, k: Tensor) -> Tensor:
    return (q.mT @ k).to(wide_dtype(q)).logsumexp(2)


def _weights(q: Tensor, k: Tensor, total: Tensor) -> Tensor:
    """The rows' softmax at these columns: ``(batch, n, columns)``, in float32 at least."""
    return ((q.mT @ k).to(total.dtype) - total[:, :, None]).exp()


def _columns(q: Tensor, k: Tensor, v: Tensor, total: Tensor) -> Tensor:
    weights = _weights(q, k, total)
    with without_autocast(v):
        out = v @ weights.to(v.dtype) / (weights.sum(1, keepdim=True) + EPS)
    return out.to(v.dtype)
