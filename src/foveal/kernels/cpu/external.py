"""External attention on CPUs: the operators of ``efficient.cpp`` that belong to it, and which calls they take.

A first pass stores the scores of positions and slots, once and in float32, with their statistics over positions; a
second normalises them in the cache and reads the value memory. Softmax over slots alone needs no first pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from foveal.kernels.cpu.derivatives import refuse_second_derivatives
from foveal.kernels.cpu.efficient import (
    DOUBLE,
    SOFTMAX,
    channels_last,
    channels_second,
    like_small,
    map_shape,
    passes,
    read,
    why_not,
)
from foveal.kernels.cpu.load import WHY_NOT

__all__ = ["external_attention", "why_not"]


def external_attention(
    x: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    key_bias: Tensor | None,
    value_bias: Tensor | None = None,
    double: bool,
    mask: Tensor | None = None,
    groups: int = 1,
) -> Tensor:
    """``(batch, heads, e, n)`` from flat features ``(batch, heads, d, n)``.

    Memories are ``(1 or heads, slots, …)``, biases ``(1 or heads, slots)`` and ``(1 or heads, e)``. In each of
    ``groups`` runs of slots the weights sum to one.
    """
    key, value = key.float().contiguous(), value.float().contiguous()
    key_bias, value_bias = (b if b is None else b.float().contiguous() for b in (key_bias, value_bias))
    how: dict[str, Any] = {"mask": mask, "out_bias": value_bias, "groups": groups}
    if not double:
        return read(x, value[None], weights=SOFTMAX, weight=key, bias=key_bias, **how)
    scores, stats = torch.ops.foveal.cpu_external_slots(x, key, key_bias, mask)
    return read(scores, value[None], weights=DOUBLE, stats=stats, like=x, **how)


def statistics(x: Tensor, key: Tensor, key_bias: Tensor | None) -> Tensor:
    """``(batch, heads, 2, slots)``: the greatest score of each slot and the sum of exponentials relative to it."""
    key_bias = key_bias if key_bias is None else key_bias.float().contiguous()
    stats: Tensor = torch.ops.foveal.cpu_external_slots(x, key.float().contiguous(), key_bias, None)[1]
    return stats


def read_unit(
    x: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    key_bias: Tensor | None,
    value_bias: Tensor | None,
    stats: Tensor | None,
    groups: int,
) -> Tensor:
    """What positions ``(batch, channels, n)`` read, from statistics of all positions ``(batch, 2, slots)``.

    Scores are met again instead of stored. Without statistics the softmax is over slots.
    """
    key, value = key.float().contiguous()[None], value.mT.float().contiguous()[None, None]
    key_bias, value_bias = (b if b is None else b.float().contiguous()[None] for b in (key_bias, value_bias))
    return read(
        x.unsqueeze(1),
        value,
        weights=SOFTMAX if stats is None else DOUBLE,
        weight=key,
        bias=key_bias,
        stats=stats if stats is None else stats.float().contiguous().unsqueeze(1),
        out_bias=value_bias,
        groups=groups,
    ).squeeze(1)


def external_unit(
    x: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    key_bias: Tensor | None,
    value_bias: Tensor | None,
    double: bool,
    groups: int,
    residual: bool,
    activation: bool,
) -> Tensor:
    """The same of a map ``(batch, channels, n)``, then plus the map, then ReLU; for the result alone, no gradients.

    ``key`` is ``(slots, channels)``, ``value`` ``(channels, slots)``, beside each its bias.
    """
    x = x.unsqueeze(1)
    last = channels_last(x)
    key, value = key.float().contiguous()[None], value.mT.float().contiguous()[None, None]
    key_bias, value_bias = (b if b is None else b.float().contiguous()[None] for b in (key_bias, value_bias))
    settings = (groups, DOUBLE if double else SOFTMAX, residual, activation, last)
    out = torch.ops.foveal.cpu_external_unit(x, key, key_bias, value, value_bias, *settings)
    return channels_second(out, last).squeeze(1)


def _register_unit() -> None:
    name = "foveal::cpu_external_unit"

    @torch.library.register_fake(name)
    def _(x, weight, bias, value, *rest):  # type: ignore[no-untyped-def]
        return x.new_empty(map_shape(x, value.shape[3], rest[-1]))

    @register_flop_formula(torch.ops.foveal.cpu_external_unit)
    def _(x, weight, bias, value, *args, out_shape=None, **kw):  # type: ignore[no-untyped-def]
        return passes(x, weight, value[2] * value[3], 1, 1)


def _register() -> None:
    name = "foveal::cpu_external_slots"

    @torch.library.register_fake(name)
    def _(x, weight, bias, mask):  # type: ignore[no-untyped-def]
        (b, h, _, n), slots = x.shape, weight.shape[1]
        return tuple(x.new_empty(shape, dtype=torch.float32) for shape in ((b, h, slots, n), (b, h, 2, slots)))

    @torch.library.register_fake(f"{name}_backward")
    def _(grad, stats_grad, scores, stats, x, weight, bias, mask, last):  # type: ignore[no-untyped-def]
        return x.new_empty(map_shape(x, x.shape[2], last)), like_small(weight, x), like_small(bias, x)

    def save(ctx, inputs, output):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(*output, *inputs)

    def backward(ctx, grad, stats_grad):  # type: ignore[no-untyped-def]
        saved = ctx.saved_tensors  # once: an activation checkpoint gives them up
        x, bias = saved[2], saved[4]
        last = channels_last(x)
        grads = torch.ops.foveal.cpu_external_slots_backward(grad, stats_grad.contiguous(), *saved, last)
        return channels_second(grads[0], last), grads[1], grads[2] if bias is not None else None, None

    torch.library.register_autograd(name, backward, setup_context=save)
    refuse_second_derivatives(f"{name}_backward", "external_attention")

    @register_flop_formula(torch.ops.foveal.cpu_external_slots)
    def _(x, weight, *args, out_shape=None, **kw):  # type: ignore[no-untyped-def]
        return passes(x, weight, 0, 1, 0)

    @register_flop_formula(torch.ops.foveal.cpu_external_slots_backward)
    def _(grad, stats_grad, scores, stats, x, weight, *args, out_shape=None, **kw):  # type: ignore[no-untyped-def]
        return passes(x, weight, 0, 2, 0)


if WHY_NOT is None:
    _register()
    _register_unit()
