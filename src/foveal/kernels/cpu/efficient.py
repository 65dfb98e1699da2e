"""Efficient attention on CPUs: the operators of ``efficient.cpp`` for torch, and which calls they take.

``context`` and ``read`` are the two passes over the positions. Each takes scores, or features with a linear map to
scores that is applied block by block in the cache. Maps are ``(batch, heads, channels, positions)``, small matrices
float32; maps come back in the memory format of the first. External attention reads through the same operator.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from foveal.kernels.cpu.derivatives import refuse_second_derivatives
from foveal.kernels.cpu.load import WHY_NOT
from foveal.kernels.onnx import why_not_in_onnx

# How ``read`` turns scores into weights, as numbered in efficient.h.
PLAIN, SOFTMAX, DOUBLE = 0, 1, 2


def why_not(*maps: Tensor, **_: Any) -> str | None:
    """None where the kernels take the call, else the reason."""
    reason = WHY_NOT or why_not_in_onnx()
    if reason is not None:
        return reason
    for x in maps:
        if x.device.type != "cpu":
            return f"it runs on the CPU, the maps are on {x.device.type}"
        if x.dtype not in (torch.float32, torch.bfloat16):
            return f"it computes float32 and bfloat16, the maps are {str(x.dtype).removeprefix('torch.')}"
    return None


def context(k: Tensor, v: Tensor, mask: Tensor | None, scaling: bool) -> Tensor:
    """``(batch, heads, d, e)`` in float32: one pass over flat keys and values; mask ``(batch, positions)``."""
    held: Tensor = torch.ops.foveal.cpu_efficient_context(k, None, None, v, mask, scaling)[0]
    return held


def context_and_statistics(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """The context ``(batch, heads, d, channels)`` of a map with itself, keys by a linear map, for its result alone.

    Beside it ``(batch, heads, 2, d)``: the greatest key of each row and the sum of exponentials relative to it.
    """
    held: Tensor
    stats: Tensor
    held, stats = torch.ops.foveal.cpu_efficient_context(x, weight, bias, None, None, False)
    return held, stats


def read(
    x: Tensor,
    held: Tensor,
    *,
    weights: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    stats: Tensor | None = None,
    mask: Tensor | None = None,
    out_bias: Tensor | None = None,
    like: Tensor | None = None,
    groups: int = 1,
) -> Tensor:
    """Weights from scores, times ``held``: ``(batch, heads, e, positions)`` of the type and layout of ``like``.

    ``weights`` says how scores become weights, the same in each of ``groups`` runs of rows.
    """
    like = x if like is None else like
    last = channels_last(like)
    settings = (groups, weights, False, like.dtype == torch.bfloat16, last)
    out = torch.ops.foveal.cpu_efficient_read(x, weight, bias, stats, held, out_bias, mask, *settings)
    return channels_second(out, last)


def channels_last(x: Tensor) -> bool:
    """Whether a position's channels lie side by side, and positions do not."""
    return x.stride(2) == 1 and x.shape[2] > 1 and x.stride(3) != 1


def channels_second(x: Tensor, last: bool) -> Tensor:
    """A map as the operators return it, with the axes in their usual order."""
    return x.permute(0, 2, 3, 1) if last else x


def map_shape(x: Tensor, channels: Any, last: bool) -> tuple[Any, ...]:
    """Shape of a new map as the operators return it."""
    b, h, _, n = x.shape
    return (b, n, h, channels) if last else (b, h, channels, n)


def like_small(x: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(x.shape if x is not None else (0,), dtype=torch.float32)


def _register_context() -> None:
    name = "foveal::cpu_efficient_context"

    @torch.library.register_fake(name)
    def _(x, weight, bias, v, mask, scaling):  # type: ignore[no-untyped-def]
        b, h, c, _ = x.shape
        d, e = weight.shape[1] if weight is not None else c, v.shape[2] if v is not None else c
        return (
            x.new_empty((b, h, d, e), dtype=torch.float32),
            x.new_empty((b, h, 2, d), dtype=torch.float32),
        )

    @torch.library.register_fake(f"{name}_backward")
    def _(grad, held, stats, x, weight, bias, v, mask, scaling, last):  # type: ignore[no-untyped-def]
        v_grad = v.new_empty(map_shape(v, v.shape[2], last)) if v is not None else grad.new_empty(0)
        x_grad = x.new_empty(map_shape(x, x.shape[2], last))
        return x_grad, like_small(weight, x), like_small(bias, x), v_grad

    @torch.library.register_fake(f"{name}_backward_add_")
    def _(x_grad, grad, held, stats, x, weight, bias, scaling):  # type: ignore[no-untyped-def]
        return like_small(weight, x), like_small(bias, x)

    def save(ctx, inputs, output):  # type: ignore[no-untyped-def]
        *tensors, ctx.scaling = inputs
        ctx.save_for_backward(*output, *tensors)
        ctx.set_materialize_grads(False)

    def backward(ctx, grad, _):  # type: ignore[no-untyped-def]
        if grad is None:
            return (None,) * 6
        held, stats, x, weight, bias, v, mask = ctx.saved_tensors
        last = channels_last(x)
        grads = torch.ops.foveal.cpu_efficient_context_backward(
            grad.contiguous(), held, stats, x, weight, bias, v, mask, ctx.scaling, last
        )
        return (
            channels_second(grads[0], last),
            grads[1] if weight is not None else None,
            grads[2] if bias is not None else None,
            channels_second(grads[3], last) if v is not None else None,
            None,
            None,
        )

    torch.library.register_autograd(name, backward, setup_context=save)
    refuse_second_derivatives(f"{name}_backward", "efficient_attention")

    @register_flop_formula(torch.ops.foveal.cpu_efficient_context)
    def _(x, weight, bias, v, *args, out_shape=None, **kw):  # type: ignore[no-untyped-def]
        d = weight[1] if weight is not None else x[2]
        return passes(x, weight, d * (v[2] if v is not None else x[2]), 1, 1)

    @register_flop_formula(torch.ops.foveal.cpu_efficient_context_backward)
    def _(grad, held, stats, x, weight, *args, out_shape=None, **kw):  # type: ignore[no-untyped-def]
        return passes(x, weight, grad[2] * grad[3], 3, 2)

    @register_flop_formula(torch.ops.foveal.cpu_efficient_context_backward_add_)
    def _(x_grad, grad, held, stats, x, weight, *args, out_shape=None, **kw):  # type: ignore[no-untyped-def]
        return passes(x, weight, grad[2] * grad[3], 3, 2)


def passes(x: Any, weight: Any, product: int, projections: int, products: int) -> int:
    """FLOPs over all positions of so many products with the map to scores and with a small matrix."""
    scores = weight[1] * weight[2] if weight is not None else 0
    return 2 * int(x[0] * x[1] * x[3] * (projections * scores + products * product))


def _register_read() -> None:
    name = "foveal::cpu_efficient_read"

    @torch.library.register_fake(name)
    def _(x, weight, bias, stats, held, out_bias, mask, groups, weights, residual, bf16, last):  # type: ignore[no-untyped-def]
        dtype = torch.bfloat16 if bf16 else torch.float32
        return x.new_empty(map_shape(x, held.shape[3], last), dtype=dtype)

    @torch.library.register_fake(f"{name}_backward")
    def _(grad, x, weight, bias, stats, held, out_bias, mask, *settings):  # type: ignore[no-untyped-def]
        x_grad = x.new_empty(map_shape(x, x.shape[2], settings[-1]))
        summed = like_small(bias if stats is None else stats, x)
        return x_grad, like_small(weight, x), summed, like_small(held, x), like_small(out_bias, x)

    def save(ctx, inputs, output):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(*inputs[:7])
        ctx.settings, ctx.last = inputs[7:10], inputs[11]

    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, weight, bias, stats, held, out_bias, mask = ctx.saved_tensors
        groups, weights, residual = ctx.settings
        grad, last = channels_second(grad, ctx.last), channels_last(x)
        grads = torch.ops.foveal.cpu_efficient_read_backward(
            grad, x, weight, bias, stats, held, out_bias, mask, groups, weights, residual, last
        )
        summed = grads[2]
        return (
            channels_second(grads[0], last),
            grads[1] if weight is not None else None,
            summed if bias is not None else None,
            summed if stats is not None else None,
            grads[3],
            grads[4] if out_bias is not None else None,
            *(None,) * 6,
        )

    torch.library.register_autograd(name, backward, setup_context=save)
    refuse_second_derivatives(f"{name}_backward", "efficient_attention")

    @register_flop_formula(torch.ops.foveal.cpu_efficient_read)
    def _(x, weight, bias, stats, held, *args, out_shape=None, **kw):  # type: ignore[no-untyped-def]
        return passes(x, weight, held[2] * held[3], 1, 1)

    @register_flop_formula(torch.ops.foveal.cpu_efficient_read_backward)
    def _(grad, x, weight, bias, stats, held, *args, out_shape=None, **kw):  # type: ignore[no-untyped-def]
        return passes(x, weight, held[2] * held[3], 3, 2)


if WHY_NOT is None:
    _register_context()
    _register_read()
