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
        self.near = [self._near(axis, q.device) for axis in range(len(self.grid.tile))]
        self.coordinates = self._coordinates(q.device)
        self.window = self._window()

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

    def _near(self, axis: int, device: torch.device) -> Tensor:
        """``(t, T)`` of one axis: 0 where a query of the tile has a halo position in its window, OUTSIDE elsewhere."""
        t, w, halo = self.grid.tile[axis], self.grid.window[axis], self.grid.halo[axis]
        gap = torch.arange(halo, device=device)[None] - torch.arange(t, device=device)[:, None]
        bias = torch.zeros(t, halo, dtype=self.dtype, device=device)
        return bias.masked_fill_((gap < 0) | (gap >= w), OUTSIDE)

    def _coordinates(self, device: torch.device) -> Tensor:
        """``(sum of T, positions of a halo)``: each position's coordinate along every axis, one-hot."""
        rows = []
        for axis, halo in enumerate(self.grid.halo):
            shape = [halo if a == axis else 1 for a in range(len(self.grid.halo))]
            hot = torch.eye(halo, dtype=self.dtype, device=device).reshape(halo, *shape)
            rows.append(hot.expand(halo, *self.grid.halo).reshape(halo, -1))
        return torch.cat(rows)

    def _window(self) -> Tensor:
        """``(positions of a tile, positions of a halo)``: 0 inside the window, OUTSIDE or less elsewhere."""
        bias = [self.along(axis, self.near[axis]) for axis in range(len(self.near))]
        return torch.cat([b.expand(*self.grid.tile, b.shape[-1]).flatten(0, -2) for b in bias], -1) @ self.coordinates

    def along(self, axis: int, x: Tensor) -> Tensor:
        """``(t, k)`` of one axis as ``(1, …, t, …, 1, k)``, to broadcast over the positions of a tile."""
        return x.reshape(*[t if a == axis else 1 for a, t in enumerate(self.grid.tile)], -1)

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
        if self.relative:
            # Logits by coordinate first, spread over the pairs by one product with the one-hot coordinates.
            own = torch.cat([self.own_logits(q, axis, part) for axis in range(len(self.relative))], -1)
            bias = (own.reshape(b * h * n * p, -1) @ self.coordinates).view(b * h * n, p, -1)
        else:
            bias = self.window.repeat(b * h * n, 1, 1)
        flat = bias.baddbmm_(q.reshape(-1, p, d), k.reshape(-1, d, k.shape[-1]))
        logits = flat.view(b, h, n, p, -1)
        if self.keep is None:
            return logits.softmax(-1)
        keep = self.keep[part.batch, :, :, key_rows(self.grid, part)]
        logits += cut_keys(self.grid, keep)
        # A query whose whole window is masked gets zeros.
        return logits.softmax(-1) * (logits.amax(-1, keepdim=True) > OUTSIDE / 2)

    def own_logits(self, q: Tensor, axis: int, part: Part) -> Tensor:
        """``(b, h, tiles, positions of a tile, T)``: q.r along one axis, OUTSIDE beyond its window."""
        table = self.relative[axis]
        own = torch.einsum("bhnxtyd,htdk->bhnxtyk", self.axis_queries(q, axis), table[self.heads_of(table, part)])
        return (own + self.near[axis][:, None]).flatten(3, 5)

    def heads_of(self, table: Tensor, part: Part) -> slice:
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
            if call.relative:
                _add_relative(call, part, to_logits, queries, to_queries, to_tables)
            rows = part.rows.stop - part.rows.start
            to_q[part.batch, part.heads, :, query_rows(grid, part)] = join_queries(grid, to_queries * scale, rows)
        to_q = grid.crop_queries(to_q)
        to_k, to_v = (grid.crop_keys(x).to(q.dtype) for x in (to_k, to_v))
        grads = [_from_residues(x, dilation, call.space).contiguous() for x in (to_q, to_k, to_v)]
        return grads + [_gather(call, axis, x).to(relative[axis].dtype) for axis, x in enumerate(to_tables)]


def _add_relative(
    call: _Problem, part: Part, to_logits: Tensor, queries: Tensor, to_queries: Tensor, to_tables: list[Tensor]
) -> None:
    """What the relative logits give to the queries and to their tables."""
    tile = call.grid.tile
    by_coordinate = to_logits.reshape(-1, to_logits.shape[-1]) @ call.coordinates.mT
    every = by_coordinate.reshape(*to_logits.shape[:-1], -1).split(list(call.grid.halo), -1)
    for axis, (table, along) in enumerate(zip(call.relative, every, strict=True)):
        along = along.unflatten(3, (math.prod(tile[:axis]), tile[axis], math.prod(tile[axis + 1 :])))
        heads = call.heads_of(table, part)
        to_own = torch.einsum("bhnxtyk,htdk->bhnxtyd", along, table[heads])
        to_queries[..., call.slices[axis]] += to_own.flatten(3, 5)
        own = torch.einsum("bhnxtyd,bhnxtyk->htdk", call.axis_queries(queries, axis), along)
        to_tables[axis][heads] += own if table.shape[0] > 1 else own.sum(0, keepdim=True)


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


def backward_flops(q_shape: Sequence[int], v_shape: Sequence[int], relative: int, kernel_size: Sequence[int]) -> int:
    """The weights once more, then two products for every product of the forward."""
    weights = flops(q_shape, (*v_shape[:2], 0, *v_shape[3:]), relative, kernel_size)
    return weights + 2 * flops(q_shape, v_shape, relative, kernel_size)


@register_flop_formula(torch.ops.foveal.local_attention)
def _(q, k, v, relative, mask, kernel_size, *args, out_shape=None, **kwargs):  # type: ignore[no-untyped-def]
    return flops(q, v, len(relative), kernel_size)


@register_flop_formula(torch.ops.foveal.local_attention_backward)
def _(grad, q, k, v, relative, mask, kernel_size, *args, out_shape=None, **kwargs):  # type: ignore[no-untyped-def]
    return backward_flops(q, v, len(relative), kernel_size)
