"""External attention: every position meets two small memories shared by all images.

Paper: Guo et al., Beyond Self-attention: External Attention using Two Linear Layers (2021), equations 5 and 6,
algorithms 1 and 2. Departures: none; ``normalization="softmax"`` is the ablation, masks and biases go beyond it.
Symbols: n positions, S = slots, d and e channels per head of the memories.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from foveal.errors import ShapeError
from foveal.functional.backends import Backend, Backends
from foveal.functional.inputs import (
    autocast,
    check_beside,
    check_choice,
    check_maps,
    check_mask,
    refuse_forward_mode,
    wide_dtype,
)
from foveal.functional.parts import Part
from foveal.kernels.cpu import external as native
from foveal.kernels.triton import load as gpu
from foveal.kernels.triton.fits import external_why_not

Normalization = Literal["double", "softmax"]
EPS = 1e-9


def external_attention(
    x: Tensor,
    memory_key: Tensor,
    memory_value: Tensor,
    *,
    normalization: Normalization = "double",
    key_bias: Tensor | None = None,
    mask: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Norm(F M_k^T) M_v: 2 n S (d + e) operations.

    Args:
        x: ``(batch, heads, d, *space)``, one to three space axes.
        memory_key: ``(S, d)``, shared by all heads as in the paper, or ``(heads, S, d)``.
        memory_value: ``(S, e)`` or ``(heads, S, e)``.
        normalization: ``"double"``: softmax over positions, then divided by the sum over slots (plus 1e-9, in
            float32 at least, so float16 is safe); ``"softmax"``: over slots alone.
        key_bias: ``(S,)`` or ``(heads, S)``, added to the logits, as the authors' multi-head code has it.
        mask: boolean ``(batch, *space)``: positions that take part; the others get zeros.
        backend: one of ``BACKENDS.names()``; None takes the fastest that fits.

    Returns:
        ``(batch, heads, e, *space)``.

    Raises:
        ShapeError: shapes disagree.
        OptionError: ``normalization`` is unknown.
        BackendError: the named backend does not exist or cannot run the call.
    """
    _check(x, memory_key, memory_value, key_bias, normalization, mask)
    x, memory_key, memory_value = autocast(x, memory_key, memory_value)
    run = BACKENDS.pick(backend, x, memory_key, memory_value)
    return run(x, memory_key, memory_value, normalization=normalization, key_bias=key_bias, mask=mask)


def _check(x: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, normalization: str, mask: Tensor | None) -> None:
    check_maps("external_attention", x=x)
    check_beside("external_attention", "x", x, {"memory_key": key, "memory_value": value})
    if bias is not None:
        check_beside("external_attention", "x", x, {"key_bias": bias}, any_type=True)
    heads, depth = x.shape[1], x.shape[2]
    by_head = key.dim() == 3 and key.shape[0] == heads
    if not (key.dim() == 2 or by_head) or key.shape[-2] == 0 or key.shape[-1] != depth:
        raise ShapeError(
            f"external_attention: memory_key must be (slots, {depth}) or ({heads}, slots, {depth}), "
            f"got {tuple(key.shape)}."
        )
    if value.dim() not in (2, 3) or value.shape[-2] != key.shape[-2] or (value.dim() == 3 and value.shape[0] != heads):
        raise ShapeError(
            f"external_attention: memory_value must be ({key.shape[-2]}, depth) or ({heads}, {key.shape[-2]}, depth), "
            f"got {tuple(value.shape)}."
        )
    if bias is not None and tuple(bias.shape) not in ((key.shape[-2],), (heads, key.shape[-2])):
        raise ShapeError(
            f"external_attention: key_bias must be ({key.shape[-2]},) or ({heads}, {key.shape[-2]}), "
            f"got {tuple(bias.shape)}."
        )
    check_choice("external_attention", "normalization", normalization, ("double", "softmax"))
    check_mask("external_attention", mask, x)


def normalize_slots(
    logits: Tensor, *, normalization: Normalization = "double", mask: Tensor | None = None, over: Part | None = None
) -> Tensor:
    """Norm of ``(batch, heads, S, n)`` logits, in float32 at least; ``mask`` is ``(batch, *space)``.

    With ``over`` these are a part of the positions, and the softmax is over the positions that it sums.
    """
    wide = wide_dtype(logits)
    seen = mask.flatten(1)[:, None, None] if mask is not None else None
    if normalization == "softmax":
        weights = logits.softmax(2, dtype=wide)
        return weights if seen is None else weights.masked_fill(~seen, 0.0)
    if over is not None:
        weights = (logits.to(wide) - over.greatest[..., None].to(wide)).exp() / over.total[..., None].to(wide)
    elif seen is None:
        weights = logits.softmax(3, dtype=wide)
    else:
        # The lowest finite number: a sample without any position stays free of NaN and becomes zeros.
        weights = logits.masked_fill(~seen, torch.finfo(logits.dtype).min).softmax(3, dtype=wide)
        weights = weights.masked_fill(~seen, 0.0)
    return weights / (weights.sum(2, keepdim=True) + EPS)


def _native(
    x: Tensor,
    memory_key: Tensor,
    memory_value: Tensor,
    *,
    normalization: Normalization,
    key_bias: Tensor | None,
    mask: Tensor | None,
) -> Tensor:
    refuse_forward_mode("external_attention", x, memory_key, memory_value)
    memories = [m if m.dim() == 3 else m[None] for m in (memory_key, memory_value)]
    out = native.external_attention(
        x.flatten(3),
        *memories,
        key_bias=key_bias if key_bias is None or key_bias.dim() == 2 else key_bias[None],
        double=normalization == "double",
        mask=mask.flatten(1).contiguous() if mask is not None else None,
    )
    return out.unflatten(3, x.shape[3:])


def _triton(
    x: Tensor,
    memory_key: Tensor,
    memory_value: Tensor,
    *,
    normalization: Normalization,
    key_bias: Tensor | None,
    mask: Tensor | None,
) -> Tensor:
    """Scores met again in every pass over the positions instead of stored."""
    from foveal.kernels.triton import external as kernels

    refuse_forward_mode("external_attention", x, memory_key, memory_value)
    key, value = (m if m.dim() == 3 else m[None] for m in (memory_key, memory_value))
    bias = key_bias if key_bias is None or key_bias.dim() == 2 else key_bias[None]
    seen = mask.flatten(1) if mask is not None else None
    out = kernels.external_attention(x.flatten(3), key, value, bias, seen, normalization == "double", EPS)
    return out.unflatten(3, x.shape[3:])


def _slots(x: Tensor, memory_key: Tensor, memory_value: Tensor, *, key_bias: Tensor | None, **options: Any) -> Tensor:
    logits = memory_key @ x.flatten(3)
    if key_bias is not None:
        logits = logits + key_bias[..., None].to(logits.dtype)
    weights = normalize_slots(logits, **options).to(x.dtype)
    return (memory_value.mT @ weights).unflatten(3, x.shape[3:])


def reference(
    x: Tensor,
    memory_key: Tensor,
    memory_value: Tensor,
    *,
    normalization: Normalization,
    key_bias: Tensor | None,
    mask: Tensor | None,
) -> Tensor:
    """The definition, one sample and head at a time, only its attended positions: masking is cropping."""
    batch, heads, _, *space = x.shape
    wide = wide_dtype(x)
    keys = memory_key.expand(heads, -1, -1)
    values = memory_value.expand(heads, -1, -1)
    flat = x.flatten(3)
    seen = flat.new_ones((batch, flat.shape[3]), dtype=torch.bool) if mask is None else mask.flatten(1)
    out = []
    for b in range(batch):
        for h in range(heads):
            logits = flat[b, h][:, seen[b]].mT @ keys[h].mT
            if key_bias is not None:
                logits = logits + key_bias.expand(heads, -1)[h].to(logits.dtype)
            if normalization == "double":
                weights = logits.softmax(0, dtype=wide)
                weights = weights / (EPS + weights.sum(1, keepdim=True))
            else:
                weights = logits.softmax(1, dtype=wide)
            attended = flat.new_zeros((flat.shape[3], values.shape[2]))
            attended = attended.index_put((seen[b].nonzero()[:, 0],), weights.to(x.dtype) @ values[h])
            out.append(attended.mT)
    if not out:
        return x.new_zeros((0, heads, values.shape[2], *space))
    return torch.stack(out).reshape(batch, heads, -1, *space)


def _cost(x: Tensor, memory_key: Tensor, memory_value: Tensor, **_: Any) -> float:
    positions = x.shape[1] * math.prod(x.shape[3:])
    return positions * memory_key.shape[-2] * (memory_key.shape[-1] + memory_value.shape[-1])


BACKENDS = Backends(
    "external_attention",
    Backend("native", _native, cost=_cost, why_not=native.why_not),
    Backend("triton", _triton, cost=_cost, why_not=external_why_not, by_name=gpu.UNMEASURED),
    Backend("slots", _slots, cost=_cost),
    reference=reference,
)
