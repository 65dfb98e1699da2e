"""The efficient-attention layer on CPUs as one operator, linear maps folded around the context.

Forward is the two passes of ``efficient.py`` with small products between them; backward is both passes in the other
order, the second adding to the gradient of the map that the first wrote.
Symbols: n positions, c channels, d = key_channels, e = value_channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from foveal.kernels.cpu.derivatives import refuse_second_derivatives
from foveal.kernels.cpu.efficient import SOFTMAX, channels_last, channels_second, like_small, map_shape
from foveal.kernels.cpu.load import WHY_NOT

Linear = tuple[Tensor, Tensor | None]


def folded_efficient_attention(
    x: Tensor, query: Linear, key: Linear, value: Linear, output: Linear, *, heads: int, residual: bool
) -> Tensor:
    """``(batch, channels, n)`` to the same; weights of the linear maps are ``(out, in)``, beside each its bias."""
    x = x.unsqueeze(1)
    last = channels_last(x)
    small = [None if p is None else p.float().contiguous() for pair in (query, key, value, output) for p in pair]
    out: Tensor = torch.ops.foveal.cpu_efficient_folded(x, *small, heads, residual, last)[0]
    return channels_second(out, last).squeeze(1)


def _row(x: Tensor | None) -> Tensor | None:
    return x if x is None else x[None]


def _through(held: Tensor, wv: Tensor, bv: Tensor | None, wo: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """The context of the map, ``(batch, 1, d, c)``: through the value projection, then also through the output's."""
    values = held.squeeze(1).unflatten(1, (heads, -1)) @ wv.unflatten(0, (heads, -1)).mT
    if bv is not None:
        values = values + bv.reshape(heads, 1, -1)
    return values, (values @ wo.mT.unflatten(0, (heads, -1))).flatten(1, 2).unsqueeze(1)


def _over_batch(a: Tensor, b: Tensor) -> Tensor:
    """a^T b of ``(batch, heads, d, …)``, summed over the batch: ``(heads, …, …)``."""
    return a.transpose(0, 1).flatten(1, 2).mT @ b.transpose(0, 1).flatten(1, 2)


def _register() -> None:
    name = "foveal::cpu_efficient_folded"
    ops = torch.ops.foveal

    @torch.library.custom_op(name, mutates_args=(), device_types="cpu")
    def run(
        x: Tensor,
        wq: Tensor,
        bq: Tensor | None,
        wk: Tensor,
        bk: Tensor | None,
        wv: Tensor,
        bv: Tensor | None,
        wo: Tensor,
        bo: Tensor | None,
        heads: int,
        residual: bool,
        last: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        held, stats = ops.cpu_efficient_context(x, wk[None], _row(bk), None, None, False)
        with torch.autocast("cpu", enabled=False):
            small = _through(held, wv, bv, wo, heads)[1]
        settings = (heads, SOFTMAX, residual, x.dtype == torch.bfloat16, last)
        out = ops.cpu_efficient_read(x, wq[None], _row(bq), None, small, _row(bo), None, *settings)
        return out, held, stats

    @torch.library.custom_op(f"{name}_backward", mutates_args=(), device_types="cpu")
    def run_backward(
        grad: Tensor,
        held: Tensor,
        stats: Tensor,
        x: Tensor,
        wq: Tensor,
        bq: Tensor | None,
        wk: Tensor,
        bk: Tensor | None,
        wv: Tensor,
        bv: Tensor | None,
        wo: Tensor,
        bo: Tensor | None,
        heads: int,
        residual: bool,
        last: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        # A backward runs outside of autocast.
        values, small = _through(held, wv, bv, wo, heads)
        settings = (heads, SOFTMAX, residual, last)
        x_grad, wq_grad, bq_grad, small_grad, bo_grad = ops.cpu_efficient_read_backward(
            grad, x, wq[None], _row(bq), None, small, _row(bo), None, *settings
        )
        small_grad = small_grad.squeeze(1).unflatten(1, (heads, -1))
        values_grad = small_grad @ wo.unflatten(1, (heads, -1)).transpose(0, 1)
        held_grad = (values_grad @ wv.unflatten(0, (heads, -1))).flatten(1, 2).unsqueeze(1)
        wk_grad, bk_grad = ops.cpu_efficient_context_backward_add_(
            channels_second(x_grad, last), held_grad.contiguous(), held, stats, x, wk[None], _row(bk), False
        )
        wv_grad = _over_batch(values_grad, held.squeeze(1).unflatten(1, (heads, -1))).flatten(0, 1)
        bv_grad = like_small(None, x) if bv is None else values_grad.sum((0, 2)).flatten()
        wo_grad = _over_batch(values, small_grad).flatten(0, 1).mT.contiguous()
        maps = (wq_grad.squeeze(0), bq_grad.flatten(), wk_grad.squeeze(0), bk_grad.flatten())
        return x_grad, *maps, wv_grad, bv_grad, wo_grad, bo_grad.flatten()

    @run.register_fake
    def _(x, wq, bq, wk, bk, wv, bv, wo, bo, heads, residual, last):  # type: ignore[no-untyped-def]
        b, h, c, _ = x.shape
        d = wk.shape[0]
        small = [x.new_empty(shape, dtype=torch.float32) for shape in ((b, h, d, c), (b, h, 2, d))]
        return x.new_empty(map_shape(x, wo.shape[0], last)), *small

    @run_backward.register_fake
    def _(grad, held, stats, x, *rest):  # type: ignore[no-untyped-def]
        return x.new_empty(map_shape(x, x.shape[2], rest[-1])), *(like_small(p, x) for p in rest[:8])

    def save(ctx, inputs, output):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(*output[1:], *inputs[:9])
        ctx.settings = inputs[9:]
        ctx.set_materialize_grads(False)

    def backward(ctx, grad, *_):  # type: ignore[no-untyped-def]
        if grad is None:
            return (None,) * 12
        last = ctx.settings[-1]
        grad = channels_second(grad, last)
        saved = ctx.saved_tensors  # once: an activation checkpoint gives them up
        grads = ops.cpu_efficient_folded_backward(grad, *saved, *ctx.settings)
        small = (g if p is not None else None for g, p in zip(grads[1:], saved[3:], strict=True))
        return channels_second(grads[0], last), *small, None, None, None

    run.register_autograd(backward, setup_context=save)
    refuse_second_derivatives(f"{name}_backward", "EfficientAttention")

    @register_flop_formula(ops.cpu_efficient_folded)
    def _(x, wq, bq, wk, bk, wv, bv, wo, bo, heads, *args, out_shape=None, **kw):  # type: ignore[no-untyped-def]
        return _flops(x, wq[0], wv[0], wo[0], heads, 1)

    @register_flop_formula(ops.cpu_efficient_folded_backward)
    def _(grad, held, stats, x, wq, bq, wk, bk, wv, bv, wo, bo, heads, *args, out_shape=None, **kw):  # type: ignore[no-untyped-def]
        again = 2 * x[0] * x[3] * wq[0] * 2 * x[2]
        return again + _flops(x, wq[0], wv[0], wo[0], heads, 2)


def _flops(x: Any, d: int, e: int, out: int, heads: int, times: int) -> int:
    """FLOPs of the four products with all positions and of the two around the context."""
    b, _, c, n = x
    return 2 * times * int(b * (n * d * (3 * c + out) + d * e // heads * (c + out)))


if WHY_NOT is None:
    _register()
