"""External attention on GPUs: scores of positions and slots are met again in every pass and never stored.

``double`` needs the softmax's statistics over all positions first: one pass; reading the value memory is another.
Backward: the value memory's gradient, for ``double`` the sums that a softmax over positions subtracts, then the
scores' gradients, which are small beside the map; torch's own products make of them those of the map and the keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.library import triton_op
from torch.utils.flop_counter import register_flop_formula

from foveal.kernels.cpu.derivatives import refuse_second_derivatives
from foveal.kernels.triton.efficient import DOUBLE, ONLINE, ROWS, Passes, new_flat


def external_attention(
    x: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None,
    mask: Tensor | None,
    double: bool,
    eps: float,
) -> Tensor:
    """``(batch, heads, e, n)`` of flat maps; memories ``(1 or heads, slots, …)``, bias ``(1 or heads, slots)``."""
    bias = None if key_bias is None else key_bias.float().contiguous()
    out: Tensor = triton_external_attention(x, key.contiguous(), value.contiguous(), bias, mask, double, eps)[0]
    return out


@triton_op("foveal::triton_external_attention", mutates_args=())
def triton_external_attention(
    x: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, mask: Tensor | None, double: bool, eps: float
) -> tuple[Tensor, Tensor]:
    """The result, and the slots' statistics over positions ``(batch, heads, 2, slots)``, for ``double`` alone."""
    slots = int(key.shape[1])
    none = torch.empty((*x.shape[:2], 2, slots) if double else (0,), dtype=torch.float32, device=x.device)
    if x.shape[0] == 0:
        return new_flat(x, int(value.shape[2]), x.dtype), none
    call = Passes(x, slots, mask, key, bias, eps)
    stats = call.context(None, ONLINE)[1] if double else None
    out = call.spread(value[None], DOUBLE if double else ROWS, x, stats)
    return out, none if stats is None else stats


@triton_op("foveal::triton_external_attention_backward", mutates_args=())
def triton_external_attention_backward(
    grad: Tensor,
    stats: Tensor,
    x: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    double: bool,
    eps: float,
) -> list[Tensor]:
    """Gradients of x, key, value and, where there is one, bias."""
    if x.shape[0] == 0:
        memories = [key, value] if bias is None else [key, value, bias]
        return [new_flat(x, int(x.shape[2]), x.dtype), *map(torch.zeros_like, memories)]
    slots = int(key.shape[1])
    call = Passes(x, slots, mask, key, bias, eps)
    mode, given = (DOUBLE, stats) if double else (ROWS, None)
    small = value[None]
    to_value = call.gather(grad, mode, given)[0].sum(0).unflatten(0, x.shape[:2]).sum(0)
    shift = call.scores_gradient(small, grad, mode, given, summed=True) if double else None
    scores = call.scores_gradient(small, grad, mode, given, shift)
    to_x = new_flat(x, int(x.shape[2]), x.dtype)
    to_x.copy_(key.mT @ scores)
    to_key = _over_batch(scores, x)
    grads = [to_x, _like(to_key, key), _like(to_value, value)]
    return grads if bias is None else [*grads, _like(scores.sum((0, 3), dtype=torch.float32), bias)]


def _over_batch(a: Tensor, b: Tensor) -> Tensor:
    """a b^T of ``(batch, heads, …, n)`` summed over the batch: ``(heads, …, …)``."""
    return torch.einsum("bhsn,bhcn->hsc", a, b)


def _like(made: Tensor, memory: Tensor) -> Tensor:
    """Summed over the heads that share a memory, of its type."""
    return (made.sum(0, keepdim=True) if memory.shape[0] == 1 else made).to(memory.dtype)


def _save(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, ctx.double, ctx.eps = inputs
    ctx.save_for_backward(output[1], *tensors)
    ctx.set_materialize_grads(False)


def _backward(ctx, grad, _):  # type: ignore[no-untyped-def]
    if grad is None:
        return (None,) * 7
    saved = ctx.saved_tensors
    to_x, to_key, to_value, *to_bias = triton_external_attention_backward(grad, *saved, ctx.double, ctx.eps)
    return to_x, to_key, to_value, to_bias[0] if to_bias else None, None, None, None


triton_external_attention.register_autograd(_backward, setup_context=_save)
refuse_second_derivatives("foveal::triton_external_attention_backward", "external_attention")


def _flops(x: Sequence[int], key: Sequence[int], value: Sequence[int]) -> int:
    """Both products with the memories, 2 per multiply-add."""
    return 2 * x[0] * x[1] * x[3] * key[1] * (key[2] + value[2])


@register_flop_formula(torch.ops.foveal.triton_external_attention)
def _(x, key, value, *args, out_shape=None, **kwargs):  # type: ignore[no-untyped-def]
    return _flops(x, key, value)


@register_flop_formula(torch.ops.foveal.triton_external_attention_backward)
def _(grad, stats, x, key, value, *args, out_shape=None, **kwargs):  # type: ignore[no-untyped-def]
    # The scores once more, then two products for every product of the forward.
    return _flops(x, key, (*value[:2], 0)) + 2 * _flops(x, key, value)
