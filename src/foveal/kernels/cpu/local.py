"""Local attention on CPUs: the operators of ``local.cpp`` for torch, and which calls they take.

The kernel knows two space axes and tables in float32; ``local_attention`` brings every call to that. Results come in
the memory format of the queries: ``(batch, rows, columns, heads, depth)`` where channels come last. Without ``k`` and
``v`` the first map holds the heads of all three, one after the other, and so does its gradient: a layer that projects
them by one product then needs no copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from foveal.kernels.cpu.derivatives import refuse_second_derivatives
from foveal.kernels.cpu.load import WHY_NOT
from foveal.kernels.onnx import why_not_in_onnx
from foveal.kernels.pytorch.local import backward_flops, flops

WIDEST = 15


def why_not(q: Tensor, k: Tensor | None, v: Tensor | None, kernel_size: Sequence[int]) -> str | None:
    """None where the kernel takes the call, else the reason."""
    reason = WHY_NOT or why_not_in_onnx()
    if reason is not None:
        return reason
    if q.device.type != "cpu":
        return f"it runs on the CPU, the maps are on {q.device.type}"
    if q.dtype not in (torch.float32, torch.bfloat16):
        return f"it computes float32 and bfloat16, the maps are {str(q.dtype).removeprefix('torch.')}"
    if len(kernel_size) > 2:
        return "it has no kernel for three space axes"
    if max(kernel_size) > WIDEST:
        return f"its windows go up to {WIDEST}, got {max(kernel_size)}"
    return None


def local_attention(
    q: Tensor,
    k: Tensor | None,
    v: Tensor | None,
    relative: Sequence[Tensor],
    mask: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
    masked_border: bool,
) -> Tensor:
    """Forward; see ``foveal.functional.local`` for the arguments."""
    axes = len(kernel_size)
    tables: list[Tensor | None] = [table.float().contiguous() for table in relative] or [None] * axes
    if axes == 1:
        q, k, v = q.unsqueeze(3), *(x if x is None else x.unsqueeze(3) for x in (k, v))
        tables, kernel_size, dilation = [None, *tables], [1, *kernel_size], [1, *dilation]
    mask = mask.reshape(q.shape[0], *q.shape[3:]).contiguous() if mask is not None else None
    channels_last = q.stride(2) == 1 and q.stride(4) != 1
    with_lse = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (q, k, v, *relative))
    settings = (*kernel_size, *dilation, scale, masked_border, channels_last)
    out = torch.ops.foveal.cpu_local_attention(q, k, v, *tables, mask, *settings, with_lse)[0]
    out = _channels_second(out, channels_last)
    return out.squeeze(3) if axes == 1 else out


def _channels_second(x: Tensor, channels_last: bool) -> Tensor:
    return x.permute(0, 3, 4, 1, 2) if channels_last else x


def _shape(x: Tensor, channels_last: bool, heads: int | None = None) -> tuple[int, ...]:
    b, h, c, *space = x.shape
    h = h if heads is None else heads
    return (b, *space, h, c) if channels_last else (b, h, c, *space)


def _three(q: Sequence[int], v: Sequence[int] | None) -> tuple[list[int], list[int]]:
    """Shapes of queries and values, from that of what holds all three where there are no values."""
    alone = [q[0], q[1] // 3, *q[2:]]
    return (alone, alone) if v is None else (list(q), list(v))


def _register() -> None:
    name = "foveal::cpu_local_attention"

    @torch.library.register_fake(name)
    def _(q, k, v, row_table, column_table, mask, *settings):  # type: ignore[no-untyped-def]
        *_, channels_last, with_lse = settings
        heads = q.shape[1] // (3 if k is None else 1)
        lse = (q.shape[0], heads, *q.shape[3:]) if with_lse else (0,)
        out = _shape(q if v is None else v, channels_last, heads)
        return q.new_empty(out), q.new_empty(lse, dtype=torch.float32)

    @torch.library.register_fake(f"{name}_backward")
    def _(grad, lse, q, k, v, row_table, column_table, mask, *settings):  # type: ignore[no-untyped-def]
        maps = [q.new_empty((0,) if x is None else _shape(x, settings[-1])) for x in (q, k, v)]
        return *maps, *(lse.new_empty(x.shape if x is not None else (0,)) for x in (row_table, column_table))

    def save(ctx, inputs, output):  # type: ignore[no-untyped-def]
        *tensors, ctx.settings = inputs[:6], inputs[6:-1]
        ctx.save_for_backward(output[1], *tensors[0])
        ctx.set_materialize_grads(False)

    def backward(ctx, grad, _):  # type: ignore[no-untyped-def]
        if grad is None:
            return (None,) * 14
        channels_last = ctx.settings[-1]
        lse, *inputs = ctx.saved_tensors
        grad = _channels_second(grad, channels_last)
        grads = torch.ops.foveal.cpu_local_attention_backward(grad, lse, *inputs, *ctx.settings)
        given = [None if x is None else made for x, made in zip(inputs[:5], grads, strict=True)]
        return *(x if x is None else _channels_second(x, channels_last) for x in given[:3]), *given[3:], *(None,) * 9

    torch.library.register_autograd(name, backward, setup_context=save)
    refuse_second_derivatives(f"{name}_backward", "local_attention")

    @register_flop_formula(torch.ops.foveal.cpu_local_attention)
    def _(q, k, v, row_table, column_table, mask, rows, columns, *args, out_shape=None, **kw):  # type: ignore[no-untyped-def]
        return flops(*_three(q, v), row_table is not None or column_table is not None, [rows, columns])

    @register_flop_formula(torch.ops.foveal.cpu_local_attention_backward)
    def _(grad, lse, q, k, v, row_table, column_table, mask, rows, columns, *args, out_shape=None, **kw):  # type: ignore[no-untyped-def]
        relative = row_table is not None or column_table is not None
        return backward_flops(*_three(q, v), relative, [rows, columns])


if WHY_NOT is None:
    _register()
