"""Explicit attention with a separable decay on GPUs: one read and one write of the map where products need several.

The matrices of the axes and what the rows are divided by are small; they come from PyTorch, which also takes their
gradients to the radius.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.library import triton_op
from torch.utils.flop_counter import register_flop_formula

from foveal.kernels.cpu.derivatives import refuse_second_derivatives
from foveal.kernels.triton import load
from foveal.kernels.triton.configs import padded
from foveal.kernels.triton.efficient import doubled
from foveal.kernels.triton.load import launcher
from foveal.kernels.triton.local import new_map

# So many programs of a head sum the gradients of its matrices.
CHUNKS = 32


def explicit_attention(v: Tensor, rows: Tensor, columns: Tensor, scale: Tensor, offset: float) -> Tensor:
    """(A V B^T + offset sum V) * scale of ``(batch, heads, channels, rows, columns)``, matrices ``(1 or heads, …)``."""
    small = [x.contiguous() for x in (rows, columns, scale)]
    out: Tensor = triton_explicit_attention(v, *small, offset)
    return out


def _settings(v: Tensor) -> dict[str, int | str]:
    """What is fixed when a kernel is compiled; the lengths of a map's axes are."""
    rows, columns = int(v.shape[3]), int(v.shape[4])
    return {
        "L0": rows,
        "L1": columns,
        "P0": padded(rows, 16),
        "P1": padded(columns, 16),
        "PRECISION": load.precision(v),
        "num_warps": 4,
    }


def _by_head(*small: Tensor) -> list[int]:
    return [0 if x.shape[0] == 1 else x.stride(0) for x in small]


def _mixed(v: Tensor, rows: Tensor, columns: Tensor, scale: Tensor, offset: float, *, backward: bool) -> Tensor:
    """A channel a program, in the map's memory format."""
    from foveal.kernels.triton import explicit_planes

    out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    if v.shape[0] > 0:
        launcher(explicit_planes.mix)[(v.shape[0] * v.shape[1] * v.shape[2],)](
            v.contiguous(),
            rows,
            columns,
            scale,
            out,
            v.shape[1],
            v.shape[2],
            offset,
            *_by_head(rows, columns, scale),
            BACKWARD=backward,
            **_settings(v),
        )
    made = new_map(v, int(v.shape[2]), v.dtype)
    return out if made.stride() == out.stride() else made.copy_(out)


@triton_op("foveal::triton_explicit_attention", mutates_args=())
def triton_explicit_attention(v: Tensor, rows: Tensor, columns: Tensor, scale: Tensor, offset: float) -> Tensor:
    """See ``explicit_attention``."""
    return _mixed(v, rows, columns, scale, offset, backward=False)


@triton_op("foveal::triton_explicit_attention_backward", mutates_args=())
def triton_explicit_attention_backward(
    grad: Tensor, v: Tensor, rows: Tensor, columns: Tensor, scale: Tensor, offset: float, learns: bool
) -> list[Tensor]:
    """Gradients of the map and, where the radius ``learns``, of both matrices and the scale."""
    to_v = _mixed(grad, rows, columns, scale, offset, backward=True)
    if not learns or v.shape[0] == 0:
        return [to_v, *(torch.zeros_like(x) for x in (rows, columns, scale))]
    from foveal.kernels.triton import explicit_planes

    heads, planes = v.shape[1], v.shape[0] * v.shape[2]
    chunk = doubled(1, -(-planes // CHUNKS))
    chunks = (planes + chunk - 1) // chunk
    parts = [torch.empty((chunks, heads, *x.shape[1:]), dtype=x.dtype, device=x.device) for x in (rows, columns, scale)]
    launcher(explicit_planes.factors)[(heads * chunks,)](
        grad.contiguous(),
        v.contiguous(),
        rows,
        columns,
        scale,
        *parts,
        heads,
        v.shape[2],
        planes,
        offset,
        *_by_head(rows, columns, scale),
        CHUNK=chunk,
        **{**_settings(v), "num_warps": 8, "num_stages": 1},
    )
    sums = [part.sum(0) for part in parts]
    small = (rows, columns, scale)
    return [to_v, *(s.sum(0, keepdim=True) if x.shape[0] == 1 else s for s, x in zip(sums, small, strict=True))]


def _save(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, ctx.offset = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    learns = any(ctx.needs_input_grad[1:4])
    return *triton_explicit_attention_backward(grad, *ctx.saved_tensors, ctx.offset, learns), None


triton_explicit_attention.register_autograd(_backward, setup_context=_save)
refuse_second_derivatives("foveal::triton_explicit_attention_backward", "explicit_attention")


def _flops(v: torch.Size) -> int:
    """Those of one matrix an axis, 2 per multiply-add."""
    return 2 * v.numel() * (v[3] + v[4])


@register_flop_formula(torch.ops.foveal.triton_explicit_attention)
def _(v, *args, out_shape=None, **kwargs):  # type: ignore[no-untyped-def]
    return _flops(torch.Size(v))


@register_flop_formula(torch.ops.foveal.triton_explicit_attention_backward)
def _(grad, v, rows, columns, scale, offset, learns, *args, out_shape=None, **kwargs):  # type: ignore[no-untyped-def]
    # For the radius the values once more, and a product for each of the matrices.
    return _flops(torch.Size(v)) * (3 if learns else 1)
