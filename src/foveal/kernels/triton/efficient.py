"""Efficient attention on GPUs: one pass over keys and values, one over the queries, and two for their gradients.

Maps are ``(batch, heads, channels, positions)``; the context and the statistics of the keys are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import triton_op
from torch.utils.flop_counter import register_flop_formula

from foveal.kernels.cpu.derivatives import refuse_second_derivatives
from foveal.kernels.triton import load
from foveal.kernels.triton.configs import padded
from foveal.kernels.triton.load import launcher

PLAIN, ROWS, DOUBLE, POSITIONS, ONLINE = range(5)
POSITIONS_AT_ONCE = 64
# A program sums at least so many positions, and of every head there are at most so many programs.
CHUNK, CHUNKS = 512, 64
# Loops over parts are as long as either, so that the kernel that puts them together is compiled twice, not 64 times.
FEW_CHUNKS = 8


def efficient_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: bool) -> Tensor:
    """``(batch, heads, e, n)`` from flat maps; mask ``(batch, m)``."""
    out: Tensor = triton_efficient_attention(q, k, v, mask, scaling)[0]
    return out


def new_flat(like: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """An empty map ``(batch, heads, channels, n)`` in the memory format of another."""
    batch, heads, depth, n = like.shape
    if like.stride(2) == 1 and depth > 1 and like.stride(3) != 1:
        return torch.empty((batch, n, heads, channels), dtype=dtype, device=like.device).permute(0, 2, 3, 1)
    return torch.empty((batch, heads, channels, n), dtype=dtype, device=like.device)


def doubled(least: int, enough: int) -> int:
    """The least doubling that is enough: kernels are compiled for it, and there are few."""
    while least < enough:
        least *= 2
    return least


class Passes:
    """What all passes over the positions of one map of scores share."""

    def __init__(
        self,
        x: Tensor,
        rows: int,
        mask: Tensor | None = None,
        linear: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 0.0,
    ) -> None:
        self.x, self.rows, self.eps = x, rows, eps
        self.mask = None if mask is None else mask.to(torch.int8).contiguous()
        self.linear, self.bias = linear, bias
        self.batch, self.heads, self.channels, self.n = x.shape
        self.pairs = self.batch * self.heads

    @property
    def chunk(self) -> int:
        """Positions that one program of ``gather`` sums."""
        return doubled(CHUNK, -(-self.n // CHUNKS))

    def tensors(self, stats: Tensor | None) -> list[Tensor]:
        """Scores or features, linear map, bias, statistics; what is not there is not looked at."""
        return [x if x is not None else self.x for x in (self.x, self.linear, self.bias, stats)]

    def by_head(self) -> list[Any]:
        """Strides of the heads of the linear map and its bias."""
        return [0 if x is None or x.shape[0] == 1 else x.stride(0) for x in (self.linear, self.bias)]

    def options(self, columns: int, mode: int, stats: Tensor | None, kind: Tensor) -> dict[str, Any]:
        """What is fixed when a kernel is compiled; ``kind`` is a map of the type that products are taken in."""
        block = padded(self.rows, 16)
        # Products of float32 in three steps hold every operand twice; what is large elsewhere is cut smaller.
        small = block > 128 or (kind.dtype == torch.float32 and load.precision(kind) != "tf32")
        most = 32 if small else 128 if block <= 64 else 64
        return {
            "D": self.rows,
            "E": columns,
            "C": int(self.channels),
            "BD": block,
            "BE": min(padded(max(columns, 1), 16), most),
            "BC": min(padded(int(self.channels), 16), 32 if small else 64),
            "BN": 32 if small else POSITIONS_AT_ONCE,
            "MODE": mode,
            "LINEAR": self.linear is not None,
            "BIAS": self.bias is not None,
            "MASK": self.mask is not None,
            "USED": stats is not None,
            "PRECISION": load.precision(kind),
            "WIDEN": load.INTERPRETED and kind.dtype == torch.bfloat16,
            "num_warps": 4 if block <= 64 and most <= 64 else 8,
            "num_stages": 2,
        }

    def gather(
        self, y: Tensor | None, mode: int, stats: Tensor | None = None, *, keep: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Shares of the chunks: weights times ``y``, ``(chunks, pairs, D, E)``, and statistics of the rows."""
        from foveal.kernels.triton import passes

        columns = 0 if y is None else int(y.shape[2])
        chunk = self.chunk
        chunks = (self.n + chunk - 1) // chunk
        made = [(chunks, self.pairs, *shape) for shape in ((self.rows, columns), (2, self.rows))]
        part, part_stats = (torch.empty(shape, dtype=torch.float32, device=self.x.device) for shape in made)
        options = self.options(columns, mode, stats, self.x if y is None else y)
        y = self.x if y is None else y
        launcher(passes.gather)[(self.pairs * chunks, _blocks(columns, options))](
            *self.tensors(stats),
            y,
            self.x if self.mask is None else self.mask,
            part,
            part_stats,
            self.heads,
            self.n,
            self.eps,
            *self.by_head(),
            *self.x.stride(),
            *y.stride(),
            CHUNK=chunk,
            KEEP=keep,
            SUM=columns > 0,
            **options,
        )
        return part, part_stats

    def context(self, y: Tensor | None, mode: int) -> tuple[Tensor, Tensor]:
        """Weights times ``y`` divided by the sums of the weights, ``(batch, heads, D, E)``, and ``(…, 2, D)``."""
        from foveal.kernels.triton import passes

        part, part_stats = self.gather(y, mode, keep=True)
        columns = part.shape[3]
        shapes = [(self.batch, self.heads, self.rows, columns), (self.batch, self.heads, 2, self.rows)]
        held, stats = (torch.empty(s, dtype=torch.float32, device=self.x.device) for s in shapes)
        options = self.options(int(columns), mode, None, self.x)
        launcher(passes.combine)[(self.pairs, _blocks(columns, options))](
            part,
            part_stats,
            held,
            stats,
            part.shape[0],
            self.pairs,
            PARTS=FEW_CHUNKS if part.shape[0] <= FEW_CHUNKS else CHUNKS,
            SUM=y is not None,
            **{name: options[name] for name in ("D", "E", "BD", "BE")},
        )
        return held, stats

    def spread(self, small: Tensor, mode: int, like: Tensor, stats: Tensor | None = None) -> Tensor:
        """What positions read from ``(batch or 1, heads or 1, D, E)``: a map like another of E channels."""
        from foveal.kernels.triton import passes

        columns = int(small.shape[3])
        out = new_flat(like, columns, like.dtype)
        options = self.options(columns, mode, stats, like)
        blocks = (self.n + options["BN"] - 1) // options["BN"]
        launcher(passes.spread)[(self.pairs * blocks,)](
            *self.tensors(stats),
            small,
            self.x if self.mask is None else self.mask,
            out,
            self.heads,
            self.n,
            self.eps,
            *self.by_head(),
            *_shared(small),
            *self.x.stride(),
            *out.stride(),
            **options,
        )
        return out

    def scores_gradient(
        self,
        small: Tensor,
        y: Tensor,
        mode: int,
        stats: Tensor | None = None,
        shift: Tensor | None = None,
        *,
        summed: bool = False,
    ) -> Tensor:
        """Of weights with the gradient ``small`` times ``y``; ``summed`` gives what ``shift`` has to be."""
        from foveal.kernels.triton import passes

        columns = int(small.shape[3])
        options = self.options(columns, mode, stats, y)
        blocks = (self.n + options["BN"] - 1) // options["BN"]
        if summed:
            to = torch.empty((blocks, self.pairs, self.rows), dtype=torch.float32, device=y.device)
            strides = [0] * 4
        else:
            to = new_flat(self.x, self.rows, self.x.dtype)
            strides = list(to.stride())
        launcher(passes.scores_gradient)[(self.pairs * blocks,)](
            *self.tensors(stats),
            small,
            y,
            self.x if self.mask is None else self.mask,
            self.x if shift is None else shift,
            to,
            self.heads,
            self.n,
            self.eps,
            *self.by_head(),
            *_shared(small),
            *self.x.stride(),
            *y.stride(),
            *strides,
            SUM=summed,
            **options,
        )
        return to.sum(0) if summed else to


def _blocks(columns: Any, options: dict[str, Any]) -> int:
    """Of a small matrix's columns."""
    return max(1, -(-int(columns) // options["BE"]))


def _shared(small: Tensor) -> list[Any]:
    """Strides of batch and heads of a small matrix that may be one for all."""
    return [0 if small.shape[axis] == 1 else small.stride(axis) for axis in (0, 1)]


@triton_op("foveal::triton_efficient_attention", mutates_args=())
def triton_efficient_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The result, the context ``(batch, heads, d, e)`` and the keys' statistics ``(batch, heads, 2, d)``."""
    rows = int(q.shape[2])
    if q.shape[0] == 0:
        shapes = [(*q.shape[:2], rows, v.shape[2]), (*q.shape[:2], 2, rows)]
        empty = [torch.empty(s, dtype=torch.float32, device=q.device) for s in shapes]
        return new_flat(q, int(v.shape[2]), v.dtype), empty[0], empty[1]
    held, stats = Passes(k, rows, mask).context(v, PLAIN if scaling else ONLINE)
    return Passes(q, rows).spread(held, PLAIN if scaling else ROWS, q), held, stats


@triton_op("foveal::triton_efficient_attention_backward", mutates_args=())
def triton_efficient_attention_backward(
    grad: Tensor, held: Tensor, stats: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: bool
) -> list[Tensor]:
    """Gradients of q, k and v."""
    if q.shape[0] == 0:
        return [new_flat(x, int(x.shape[2]), x.dtype) for x in (q, k, v)]
    rows = int(q.shape[2])
    queries, keys = Passes(q, rows), Passes(k, rows, mask)
    of_queries, of_keys = (PLAIN, PLAIN) if scaling else (ROWS, POSITIONS)
    to_q = queries.scores_gradient(held, grad, of_queries)
    # Rounded before both uses, whose difference is the gradient of the keys.
    to_held = queries.gather(grad, of_queries)[0].sum(0).unflatten(0, q.shape[:2]).to(v.dtype)
    shift = (to_held * held).sum(3)
    to_k = keys.scores_gradient(to_held, v, of_keys, stats, shift)
    return [to_q, to_k, keys.spread(to_held, of_keys, v, stats)]


def _save(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, ctx.scaling = inputs
    ctx.save_for_backward(*output[1:], *tensors)
    ctx.set_materialize_grads(False)


def _backward(ctx, grad, *_):  # type: ignore[no-untyped-def]
    if grad is None:
        return (None,) * 5
    grads = triton_efficient_attention_backward(grad, *ctx.saved_tensors, ctx.scaling)
    return *grads, None, None


triton_efficient_attention.register_autograd(_backward, setup_context=_save)
refuse_second_derivatives("foveal::triton_efficient_attention_backward", "efficient_attention")


def _flops(q: Sequence[int], k: Sequence[int], v: Sequence[int]) -> int:
    """Both products with the context, 2 per multiply-add."""
    return 2 * q[0] * q[1] * q[2] * v[2] * (q[3] + k[3])


@register_flop_formula(torch.ops.foveal.triton_efficient_attention)
def _(q, k, v, *args, out_shape=None, **kwargs):  # type: ignore[no-untyped-def]
    return _flops(q, k, v)


@register_flop_formula(torch.ops.foveal.triton_efficient_attention_backward)
def _(grad, held, stats, q, k, v, *args, out_shape=None, **kwargs):  # type: ignore[no-untyped-def]
    return 2 * _flops(q, k, v)
