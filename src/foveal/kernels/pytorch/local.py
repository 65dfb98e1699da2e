"""Local attention over tiles of the map: memory O(n), matrix products, forward and backward.

A tile's queries meet all keys of its halo in one matrix product; pairs outside the window get a bias that the
softmax turns into exact zeros. The backward computes the weights again, so nothing of size n x window is kept.
Work goes block by block through ``PAIRS`` query-key pairs, which keeps the blocks in a core's cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from foveal.kernels.pytorch.tiles import (
    Part,
    add_keys,
    cut_keys,
    cut_queries,
    join_queries,
    key_rows,
    parts,
    plan,
    query_rows,
)

PAIRS = {"cpu": 1 << 20, "cuda": 1 << 26}
# Finite, so that a row without any key stays free of NaN; far below any logit, so that exp gives exact zeros.
OUTSIDE = -1e30


def _residues(x: Tensor, dilation: Sequence[int], value: float = 0.0) -> Tensor:
    """Positions of equal residue modulo the dilation attend among themselves: they become batch entries."""
    if all(d == 1 for d in dilation):
        return x
    axes = len(dilation)
    pad = [(-size) % d for size, d in zip(x.shape[-axes:], dilation, strict=True)]
    x = F.pad(x, [side for p in reversed(pad) for side in (0, p)], value=value)
    split = [m for size, d in zip(x.shape[-axes:], dilation, strict=True) for m in (size // d, d)]
    x = x.reshape(*x.shape[:-axes], *split)
    x = x.permute(*(4 + 2 * a for a in range(axes)), 0, 1, 2, *(3 + 2 * a for a in range(axes)))
    return x.reshape(-1, *x.shape[axes + 1 :])


def _from_residues(x: Tensor, dilation: Sequence[int], space: Sequence[int]) -> Tensor:
    """The inverse of ``_residues``."""
    if all(d == 1 for d in dilation):
        return x
    axes = len(dilation)
    x = x.reshape(*dilation, -1, *x.shape[1:])
    x = x.permute(axes, axes + 1, axes + 2, *(m for a in range(axes) for m in (axes + 3 + a, a)))
    x = x.reshape(*x.shape[:3], *(x.shape[3 + 2 * a] * x.shape[4 + 2 * a] for a in range(axes)))
    for axis, length in enumerate(space):
        x = x.narrow(3 + axis, 0, length)
    return x


def query_slices(tables: Sequence[Tensor], depth: int) -> list[slice]:
    """The features of the query that meet each table: split in order where the depths sum to it, else all."""
    depths = [table.shape[2] for table in tables]
    if sum(depths) != depth:
        return [slice(0, depth)] * len(depths)
    starts = [sum(depths[:axis]) for axis in range(len(depths))]
    return [slice(start, start + size) for start, size in zip(starts, depths, strict=True)]


class _Problem:
    """One call, brought to dilation 1, padded, and ready to be walked through part by part."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        relative: Sequence[Tensor],
        mask: Tensor | None,
        kernel_size: Sequence[int],
        dilation: Sequence[int],
        scale: float,
        masked_border: bool,
    ) -> None:
        self.dilation, self.scale, self.space = dilation, scale, tuple(q.shape[3:])
        self.dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
        q, k, v = (_residues(x, dilation) for x in (q, k, v))
        self.grid = plan(tuple(q.shape[3:]), tuple(kernel_size))
        self.heads = q.shape[1]
        self.q, self.k, self.v = self.grid.pad_queries(q), self.grid.pad_keys(k), self.grid.pad_keys(v)
        self.drops_keys = mask is not None or masked_border
        self.keep = self._keep(mask, masked_border, q) if self.drops_keys else None
        self.relative = [self._spread(table, axis) for axis, table in enumerate(relative)]
        self.slices = query_slices(relative, q.shape[2])
        self.window = self._window(q.device)

    def parts(self) -> list[Part]:
        pairs = PAIRS.get(self.q.device.type, PAIRS["cuda"])
        return list(parts(self.grid, self.q.shape[0], self.heads, pairs)) if self.q.numel() or self.v.numel() else []

    def _keep(self, mask: Tensor | None, masked_border: bool, q: Tensor) -> Tensor:
        """Bias of every key position of the padded map, ``(batch or 1, 1, 1, *padded)``: 0 or OUTSIDE."""
        outside = 0.0 if masked_border else 1.0
        kept = q.new_ones((1, 1, 1, *self.space), dtype=self.dtype)
        if mask is not None:
            kept = mask[:, None, None].to(self.dtype)
        kept = self.grid.pad_keys(_residues(kept, self.dilation, value=outside), value=outside)
        # One map for all batches still has an entry for every residue.
        repeat = q.shape[0] // kept.shape[0]
        kept = kept.unflatten(0, (-1, 1 if mask is None else kept.shape[0] // math.prod(self.dilation)))
        return (kept.expand(-1, kept.shape[1] * repeat, *kept.shape[2:]).flatten(0, 1) - 1.0) * -OUTSIDE

    def _spread(self, table: Tensor, axis: int) -> Tensor:
        """``(heads, t, d, T)``: for every query of a tile the embedding of every halo position, zero outside."""
        t, halo = self.grid.tile[axis], self.grid.halo[axis]
        padded = F.pad(table.to(self.dtype), (0, 0, t - 1, t - 1))
        return padded.unfold(1, halo, 1).flip(1)

    def _window(self, device: torch.device) -> Tensor:
        """``(positions of a tile, positions of a halo)``: 0 inside the window, OUTSIDE elsewhere."""
        inside = torch.ones((), dtype=torch.bool, device=device)
        axes = len(self.grid.tile)
        for axis, (t, w, halo) in enumerate(zip(self.grid.tile, self.grid.window, self.grid.halo, strict=True)):
            gap = torch.arange(halo, device=device)[None] - torch.arange(t, device=device)[:, None]
            shape = [1] * (2 * axes)
            shape[axis], shape[axes + axis] = t, halo
            inside = inside & ((gap >= 0) & (gap < w)).view(shape)
        bias = torch.zeros(inside.shape, dtype=self.dtype, device=device).masked_fill_(~inside, OUTSIDE)
        return bias.reshape(math.prod(self.grid.tile), math.prod(self.grid.halo))

    def queries(self, x: Tensor, part: Part) -> Tensor:
        rows = query_rows(self.grid, part)
        return cut_queries(self.grid, x[part.batch, part.heads, :, rows].to(self.dtype))

    def keys(self, x: Tensor, part: Part) -> Tensor:
        rows = key_rows(self.grid, part)
        return cut_keys(self.grid, x[part.batch, part.heads, :, rows].to(self.dtype))

    def axis_queries(self, q: Tensor, axis: int) -> Tensor:
        """``(b, h, tiles, t before, t, t after, d)``: the part of the queries that meets an axis's table."""
        tile = self.grid.tile
        q = q[..., self.slices[axis]]
        return q.unflatten(3, (math.prod(tile[:axis]), tile[axis], math.prod(tile[axis + 1 :])))

    def weights(self, q: Tensor, k: Tensor, part: Part) -> Tensor:
        """Softmax weights ``(b, h, tiles, positions of a tile, positions of a halo)``."""
        b, h, n, p, d = q.shape
        flat = torch.baddbmm(self.window, q.reshape(-1, p, d), k.reshape(-1, d, k.shape[-1]))
        logits = flat.view(b, h, n, p, -1)
        axes = len(self.grid.tile)
        for axis, table in enumerate(self.relative):
            own = torch.einsum("bhnxtyd,htdk->bhnxtyk", self.axis_queries(q, axis), table[self._of(table, part)])
            shape = [1] * axes
            shape[axis] = self.grid.halo[axis]
            logits.view(b, h, n, p, *self.grid.halo).add_(own.reshape(b, h, n, p, *shape))
        if self.keep is None:
            return logits.softmax(-1)
        keep = self.keep[part.batch, :, :, key_rows(self.grid, part)]
        logits += cut_keys(self.grid, keep)
        # A query whose whole window is masked gets zeros.
        return logits.softmax(-1) * (logits.amax(-1, keepdim=True) > OUTSIDE / 2)

    def _of(self, table: Tensor, part: Part) -> slice:
        return part.heads if table.shape[0] > 1 else slice(0, 1)


@torch.library.custom_op("foveal::local_attention", mutates_args=())
def local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    relative: Sequence[Tensor],
    mask: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
    masked_border: bool,
) -> Tensor:
    """Forward; see ``foveal.functional.local`` for the arguments."""
    with torch.autocast(q.device.type, enabled=False):
        call = _Problem(q, k, v, relative, mask, kernel_size, dilation, scale, masked_border)
        out = v.new_empty((*call.q.shape[:2], v.shape[2], *call.q.shape[3:]))
        for part in call.parts():
            weights = call.weights(call.queries(call.q, part) * scale, call.keys(call.k, part), part)
            attended = weights @ call.keys(call.v, part).mT
            rows = part.rows.stop - part.rows.start
            out[part.batch, part.heads, :, query_rows(call.grid, part)] = join_queries(call.grid, attended, rows)
        return _from_residues(call.grid.crop_queries(out), dilation, call.space).contiguous()


@torch.library.custom_op("foveal::local_attention_backward", mutates_args=())
def local_attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    relative: Sequence[Tensor],
    mask: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
    masked_border: bool,
) -> list[Tensor]:
    """Gradients of q, k, v and of each relative table."""
    with torch.autocast(q.device.type, enabled=False):
        call = _Problem(q, k, v, relative, mask, kernel_size, dilation, scale, masked_border)
        grid = call.grid
        grad = grid.pad_queries(_residues(grad, dilation))
        to_q = call.q.new_empty(call.q.shape)
        to_k, to_v = (torch.zeros(x.shape, dtype=call.dtype, device=x.device) for x in (call.k, call.v))
        to_tables = [torch.zeros_like(table) for table in call.relative]
        for part in call.parts():
            queries, keys = call.queries(call.q, part) * scale, call.keys(call.k, part)
            weights = call.weights(queries, keys, part)
            out_grad = call.queries(grad, part)
            add_keys(grid, out_grad.mT @ weights, to_v[part.batch, part.heads, :, key_rows(grid, part)])
            to_logits = torch._softmax_backward_data(out_grad @ call.keys(call.v, part), weights, -1, call.dtype)
            del weights, out_grad
            add_keys(grid, queries.mT @ to_logits, to_k[part.batch, part.heads, :, key_rows(grid, part)])
            to_queries = to_logits @ keys.mT
            for axis, table in enumerate(call.relative):
                _add_relative(call, part, axis, table, to_logits, queries, to_queries, to_tables[axis])
            rows = part.rows.stop - part.rows.start
            to_q[part.batch, part.heads, :, query_rows(grid, part)] = join_queries(grid, to_queries * scale, rows)
        to_q = grid.crop_queries(to_q)
        to_k, to_v = (grid.crop_keys(x).to(q.dtype) for x in (to_k, to_v))
        grads = [_from_residues(x, dilation, call.space).contiguous() for x in (to_q, to_k, to_v)]
        return grads + [_gather(call, axis, x).to(relative[axis].dtype) for axis, x in enumerate(to_tables)]


def _add_relative(
    call: _Problem,
    part: Part,
    axis: int,
    table: Tensor,
    to_logits: Tensor,
    queries: Tensor,
    to_queries: Tensor,
    to_table: Tensor,
) -> None:
    """What the relative logits of one axis give to the queries and to their table."""
    axes = len(call.grid.tile)
    others = [4 + a for a in range(axes) if a != axis]
    along = to_logits.unflatten(4, call.grid.halo)
    along = along.sum(others) if others else along
    tile = call.grid.tile
    along = along.unflatten(3, (math.prod(tile[:axis]), tile[axis], math.prod(tile[axis + 1 :])))
    heads = call._of(table, part)
    to_own = torch.einsum("bhnxtyk,htdk->bhnxtyd", along, table[heads])
    to_queries[..., call.slices[axis]] += to_own.flatten(3, 5)
    own = torch.einsum("bhnxtyd,bhnxtyk->htdk", call.axis_queries(queries, axis), along)
    to_table[heads] += own if table.shape[0] > 1 else own.sum(0, keepdim=True)


def _gather(call: _Problem, axis: int, spread: Tensor) -> Tensor:
    """The adjoint of ``_Problem._spread``: ``(heads, t, d, T)`` back to ``(heads, window, d)``."""
    t, w = call.grid.tile[axis], call.grid.window[axis]
    return torch.stack([spread[:, i, :, i : i + w] for i in range(t)]).sum(0).transpose(1, 2).contiguous()


@local_attention.register_fake
def _(q, k, v, relative, mask, kernel_size, dilation, scale, masked_border):  # type: ignore[no-untyped-def]
    return v.new_empty(v.shape)


@local_attention_backward.register_fake
def _(grad, q, k, v, relative, mask, kernel_size, dilation, scale, masked_border):  # type: ignore[no-untyped-def]
    return [x.new_empty(x.shape) for x in (q, k, v, *relative)]


def _save(ctx, inputs, output):  # type: ignore[no-untyped-def]
    q, k, v, relative, mask, *ctx.settings = inputs
    ctx.masked = mask is not None
    ctx.save_for_backward(q, k, v, *relative, *([mask] if ctx.masked else []))


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    q, k, v, *rest = ctx.saved_tensors
    mask = rest.pop() if ctx.masked else None
    to_q, to_k, to_v, *to_tables = local_attention_backward(grad, q, k, v, rest, mask, *ctx.settings)
    return to_q, to_k, to_v, to_tables, None, None, None, None, None


local_attention.register_autograd(_backward, setup_context=_save)


def flops(q_shape: Sequence[int], v_shape: Sequence[int], relative: int, kernel_size: Sequence[int]) -> int:
    """The definition's count, 2 per multiply-add: q.k, one q.r where there are tables, and the weighted sum.

    Pairs that the tiles compute outside the window are an expense of this evaluation, not work of the operation.
    """
    batch, heads, depth, *space = q_shape
    return 2 * batch * heads * math.prod(space) * math.prod(kernel_size) * (depth * (1 + bool(relative)) + v_shape[2])


@register_flop_formula(torch.ops.foveal.local_attention)
def _(q, k, v, relative, mask, kernel_size, *args, out_shape=None, **kwargs):  # type: ignore[no-untyped-def]
    return flops(q, v, len(relative), kernel_size)


@register_flop_formula(torch.ops.foveal.local_attention_backward)
def _(grad, q, k, v, relative, mask, kernel_size, *args, out_shape=None, **kwargs):  # type: ignore[no-untyped-def]
    # The weights once more, then two products for every product of the forward.
    weights = flops(q, (*v[:2], 0, *v[3:]), len(relative), kernel_size)
    return weights + 2 * flops(q, v, len(relative), kernel_size)
