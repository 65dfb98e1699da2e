"""Explicit attention with a separable decay on CPUs: the operators of ``explicit.cpp`` for torch, and which calls they
take.

The kernel knows two space axes and makes the small tables of an axis from the radius itself. Results come in the
memory format of the values.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from foveal.kernels.cpu.load import WHY_NOT
from foveal.kernels.onnx import why_not_in_onnx

DECAYS = ("gaussian", "manhattan")


def why_not(v: Tensor, *, decay: str, mask: Tensor | None) -> str | None:
    """None where the kernel takes the call, else the reason."""
    if decay not in DECAYS:
        return f"decay {decay!r} is no product over the axes"
    reason = WHY_NOT or why_not_in_onnx()
    if reason is not None:
        return reason
    if v.device.type != "cpu":
        return f"it runs on the CPU, the map is on {v.device.type}"
    if v.dtype not in (torch.float32, torch.bfloat16):
        return f"it computes float32 and bfloat16, the map is {str(v.dtype).removeprefix('torch.')}"
    if v.dim() > 5:
        return "it has no kernel for three space axes"
    if mask is not None:
        return "it takes no mask"
    return None


def explicit_attention(v: Tensor, radius: Tensor, decay: str, offset: float) -> Tensor:
    """Forward; see ``foveal.functional.explicit`` for the arguments."""
    if v.dim() == 4:
        return explicit_attention(v.unsqueeze(3), radius, decay, offset).squeeze(3)
    channels_last = v.stride(2) == 1 and v.stride(4) != 1
    radius = radius.float()
    out: Tensor = torch.ops.foveal.cpu_explicit_attention(v, radius, decay == "manhattan", offset, channels_last)
    return out.permute(0, 3, 4, 1, 2) if channels_last else out


def _shape(v: Tensor, channels_last: bool) -> tuple[int, ...]:
    b, h, c, *space = v.shape
    return (b, *space, h, c) if channels_last else (b, h, c, *space)


def flops(v_shape: torch.Size, radius_shape: torch.Size) -> int:
    """Those of one matrix an axis, 2 per multiply-add, for the values and for the row sums of every radius.

    Where the kernel has a recursion or an expansion it does less.
    """
    batch, heads, channels, *space = v_shape
    if space[0] == 1:
        space = space[1:]
    return 2 * math.prod(space) * sum(space) * (batch * heads * channels + math.prod(radius_shape))


def _register() -> None:
    name = "foveal::cpu_explicit_attention"

    @torch.library.register_fake(name)
    def _(v, radius, manhattan, offset, channels_last):  # type: ignore[no-untyped-def]
        return v.new_empty(_shape(v, channels_last))

    @torch.library.register_fake(f"{name}_backward")
    def _(grad, v, radius, manhattan, offset, channels_last, with_map, with_radius):  # type: ignore[no-untyped-def]
        return v.new_empty(_shape(v, channels_last) if with_map else (0,)), torch.empty_like(radius)

    def save(ctx, inputs, output):  # type: ignore[no-untyped-def]
        v, radius, *ctx.settings = inputs
        ctx.save_for_backward(v, radius)

    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        v, radius = ctx.saved_tensors
        channels_last = ctx.settings[-1]
        grad = grad.permute(0, 3, 4, 1, 2) if channels_last else grad
        for_v, for_radius = ctx.needs_input_grad[:2]
        to_v, to_radius = torch.ops.foveal.cpu_explicit_attention_backward(
            grad, v, radius, *ctx.settings, for_v, for_radius
        )
        if for_v and channels_last:
            to_v = to_v.permute(0, 3, 4, 1, 2)
        return to_v if for_v else None, to_radius if for_radius else None, None, None, None

    torch.library.register_autograd(name, backward, setup_context=save)

    @register_flop_formula(torch.ops.foveal.cpu_explicit_attention)
    def _(v, radius, *args, out_shape=None, **kwargs):  # type: ignore[no-untyped-def]
        return flops(v, radius)

    @register_flop_formula(torch.ops.foveal.cpu_explicit_attention_backward)
    def _(grad, v, radius, *args, out_shape=None, **kwargs):  # type: ignore[no-untyped-def]
        # The values' gradient, and for the radius' the values once more, with the derivative beside them.
        *_, with_map, with_radius = args
        return flops(v, radius) * (with_map + 3 * with_radius)


if WHY_NOT is None:
    _register()
