"""Passes over the positions of a map, for attention through a small context or small memories.

Every pass turns scores of positions and rows (key channels, or slots of a memory) into weights, block by block and
never stored: ``gather`` sums them with a map into a small matrix, ``spread`` reads a small matrix back to the
positions, ``scores_gradient`` is the backward of the weights. Programs that share a sum write parts of it, which are
then added in the order of the positions.
Symbols: D rows, E columns of the small matrix, n positions, C features that a linear map turns into scores.
"""

# What Triton compiles is not Python: its values have no types that mypy knows.
# mypy: ignore-errors

import triton
import triton.language as tl

from foveal.kernels.triton.places import product

# How scores become weights: as they are; softmax over rows; softmax over positions by their statistics, then divided
# by the sum over rows; by their statistics alone; softmax over positions whose statistics are only being made.
PLAIN = tl.constexpr(0)
ROWS = tl.constexpr(1)
DOUBLE = tl.constexpr(2)
POSITIONS = tl.constexpr(3)
ONLINE = tl.constexpr(4)


@triton.jit
def scores(
    x_ptr, linear_ptr, bias_ptr, d, n, seen, xc, xn,
    D: tl.constexpr, C: tl.constexpr, BC: tl.constexpr, LINEAR: tl.constexpr, BIAS: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """``(D, n)`` in float32: read, or made of features by a linear map."""
    n = n.to(tl.int64)
    own = (d < D)[:, None]
    if LINEAR:
        c = tl.arange(0, BC)
        made = tl.zeros([d.shape[0], n.shape[0]], tl.float32)
        for step in range((C + BC - 1) // BC):
            at = step * BC + c
            linear = tl.load(linear_ptr + d[:, None] * C + at[None, :], mask=own & (at < C)[None, :], other=0.0)
            x = tl.load(x_ptr + at[:, None] * xc + n[None, :] * xn, mask=(at < C)[:, None] & seen[None, :], other=0.0)
            made += product(linear, x, PRECISION, WIDEN)
        if BIAS:
            made += tl.load(bias_ptr + d, mask=d < D, other=0.0)[:, None]
        return made
    return tl.load(x_ptr + d[:, None] * xc + n[None, :] * xn, mask=own & seen[None, :], other=0.0).to(tl.float32)


@triton.jit
def weights(s, top, total, d, seen, eps, D: tl.constexpr, MODE: tl.constexpr):
    """Weights ``(D, n)``, what they were before division by their sum over rows, and that sum ``(n)``."""
    there = (d < D)[:, None] & seen[None, :]
    if MODE == PLAIN:
        w = tl.where(there, s, 0.0) / total[:, None]
        return w, w, tl.sum(w, 0)
    if MODE == ROWS:
        s = tl.where((d < D)[:, None], s * 1.4426950408889634, -float("inf"))
        p = tl.exp2(s - tl.max(s, 0)[None, :])
        w = tl.where(there, p / tl.sum(p, 0)[None, :], 0.0)
        return w, w, tl.sum(w, 0)
    # Scores are never above the greatest, but a product may have been rounded otherwise.
    p = tl.where(there, tl.exp2(tl.minimum(s * 1.4426950408889634 - top[:, None], 0.0)), 0.0) / total[:, None]
    if MODE == POSITIONS:
        return p, p, tl.sum(p, 0)
    whole = tl.sum(p, 0) + eps
    return p / whole[None, :], p, whole


@triton.jit
def statistics(stats_ptr, pair, d, D: tl.constexpr, USED: tl.constexpr):
    """The greatest score and the sum of exponentials of every row; where there is nothing to attend to a sum of 1."""
    top = tl.zeros([d.shape[0]], tl.float32)
    total = tl.full([d.shape[0]], 1.0, tl.float32)
    if USED:
        top = tl.load(stats_ptr + pair * 2 * D + d, mask=d < D, other=0.0)
        total = tl.load(stats_ptr + (pair * 2 + 1) * D + d, mask=d < D, other=1.0)
        total = tl.where(total == 0.0, 1.0, total)
    return tl.where(top == -float("inf"), 0.0, top), total


@triton.jit
def gather(
    x_ptr, linear_ptr, bias_ptr, stats_ptr, y_ptr, mask_ptr, part_ptr, part_stats_ptr,
    heads, N, eps, linear_head, bias_head, xb, xh, xc, xn, yb, yh, yc, yn, CHUNK: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, C: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, BC: tl.constexpr,
    BN: tl.constexpr, MODE: tl.constexpr, LINEAR: tl.constexpr, BIAS: tl.constexpr, MASK: tl.constexpr,
    USED: tl.constexpr, KEEP: tl.constexpr, SUM: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """A chunk's share of weights times y: ``(D, E)``; with KEEP also its statistics of every row."""
    chunks = tl.cdiv(N, CHUNK)
    pair, part = (tl.program_id(0) // chunks).to(tl.int64), tl.program_id(0) % chunks
    batch, head = pair // heads, pair % heads
    d, e = tl.arange(0, BD), tl.program_id(1) * BE + tl.arange(0, BE)
    x_ptr += batch * xb + head * xh
    y_ptr += batch * yb + head * yh
    mask_ptr += batch * N
    linear_ptr += head * linear_head
    bias_ptr += head * bias_head
    given, total = statistics(stats_ptr, pair, d, D, USED)
    top = tl.full([BD], -float("inf"), tl.float32)
    if MODE == PLAIN:
        top = tl.zeros([BD], tl.float32)
    amount = tl.zeros([BD], tl.float32)
    sums = tl.zeros([BD, BE], tl.float32)
    for step in range((CHUNK + BN - 1) // BN):
        n = part * CHUNK + step * BN + tl.arange(0, BN)
        seen = (n < N) & (n < (part + 1) * CHUNK)
        s = scores(x_ptr, linear_ptr, bias_ptr, d, n, seen, xc, xn, D, C, BC, LINEAR, BIAS, PRECISION, WIDEN)
        kept = seen
        if MASK:
            kept = kept & (tl.load(mask_ptr + n, mask=seen, other=0) != 0)
        if MODE == ONLINE:
            s = tl.where(kept[None, :], s * 1.4426950408889634, -float("inf"))
            higher = tl.maximum(top, tl.max(s, 1))
            level = tl.where(higher == -float("inf"), 0.0, higher)
            w = tl.exp2(s - level[:, None])
            shrink = tl.exp2(top - level)
            amount = amount * shrink + tl.sum(w, 1)
            sums = sums * shrink[:, None]
            top = higher
        else:
            w, _, _ = weights(s, given, total, d, kept, eps, D, MODE)
            amount += tl.sum(kept.to(tl.float32), 0)
        if SUM:
            at = y_ptr + n.to(tl.int64)[:, None] * yn + e[None, :] * yc
            y = tl.load(at, mask=seen[:, None] & (e < E)[None, :], other=0.0)
            sums += product(w.to(y.dtype), y, PRECISION, WIDEN)
    slot = part.to(tl.int64) * (tl.num_programs(0) // chunks) + pair
    if SUM:
        at = part_ptr + slot * D * E + d[:, None] * E + e[None, :]
        tl.store(at, sums, mask=(d < D)[:, None] & (e < E)[None, :])
    if KEEP:  # noqa: SIM102  decided when the kernel is compiled, the other when it runs
        if tl.program_id(1) == 0:
            tl.store(part_stats_ptr + slot * 2 * D + d, top, mask=d < D)
            tl.store(part_stats_ptr + (slot * 2 + 1) * D + d, amount, mask=d < D)


@triton.jit
def combine(
    part_ptr, part_stats_ptr, held_ptr, stats_ptr, chunks, pairs, PARTS: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """The chunks' shares put together in their order: the context ``(D, E)``, statistics ``(2, D)``."""
    pair = tl.program_id(0).to(tl.int64)
    d, e = tl.arange(0, BD), tl.program_id(1) * BE + tl.arange(0, BE)
    there = (d < D)[:, None] & (e < E)[None, :]
    top = tl.full([BD], -float("inf"), tl.float32)
    total = tl.zeros([BD], tl.float32)
    sums = tl.zeros([BD, BE], tl.float32)
    for part in range(PARTS):
        slot = part * pairs + pair
        made = (d < D) & (part + 0 * d < chunks)
        here = tl.load(part_stats_ptr + slot * 2 * D + d, mask=made, other=-float("inf"))
        higher = tl.maximum(top, here)
        level = tl.where(higher == -float("inf"), 0.0, higher)
        shrink, share = tl.exp2(top - level), tl.exp2(here - level)
        total = total * shrink + share * tl.load(part_stats_ptr + (slot * 2 + 1) * D + d, mask=made, other=0.0)
        if SUM:
            own = tl.load(part_ptr + slot * D * E + d[:, None] * E + e[None, :], mask=there & made[:, None], other=0.0)
            sums = sums * shrink[:, None] + own * share[:, None]
        top = higher
    if SUM:
        held = sums / tl.where(total == 0.0, 1.0, total)[:, None]
        tl.store(held_ptr + pair * D * E + d[:, None] * E + e[None, :], held, mask=there)
    if tl.program_id(1) == 0:
        tl.store(stats_ptr + pair * 2 * D + d, top, mask=d < D)
        tl.store(stats_ptr + (pair * 2 + 1) * D + d, total, mask=d < D)


@triton.jit
def spread(
    x_ptr, linear_ptr, bias_ptr, stats_ptr, small_ptr, mask_ptr, out_ptr,
    heads, N, eps, linear_head, bias_head, small_batch, small_head, xb, xh, xc, xn, ob, oh, oc, on,
    D: tl.constexpr, E: tl.constexpr, C: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, BC: tl.constexpr,
    BN: tl.constexpr, MODE: tl.constexpr, LINEAR: tl.constexpr, BIAS: tl.constexpr, MASK: tl.constexpr,
    USED: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """What the positions of a block read from a small matrix ``(D, E)``: a map of E channels."""
    blocks = tl.cdiv(N, BN)
    pair = (tl.program_id(0) // blocks).to(tl.int64)
    batch, head = pair // heads, pair % heads
    n = tl.program_id(0) % blocks * BN + tl.arange(0, BN)
    seen = n < N
    d = tl.arange(0, BD)
    top, total = statistics(stats_ptr, pair, d, D, USED)
    s = scores(
        x_ptr + batch * xb + head * xh, linear_ptr + head * linear_head, bias_ptr + head * bias_head,
        d, n, seen, xc, xn, D, C, BC, LINEAR, BIAS, PRECISION, WIDEN,
    )  # fmt: skip
    kept = seen
    if MASK:
        kept = kept & (tl.load(mask_ptr + batch * N + n, mask=seen, other=0) != 0)
    w, _, _ = weights(s, top, total, d, kept, eps, D, MODE)
    small_ptr += batch * small_batch + head * small_head
    out_ptr += batch * ob + head * oh
    kind = out_ptr.dtype.element_ty
    w = w.to(kind)
    for step in range((E + BE - 1) // BE):
        e = step * BE + tl.arange(0, BE)
        small = tl.load(small_ptr + d[:, None] * E + e[None, :], mask=(d < D)[:, None] & (e < E)[None, :], other=0.0)
        out = product(tl.trans(small.to(kind)), w, PRECISION, WIDEN)
        to = out_ptr + e[:, None] * oc + n.to(tl.int64)[None, :] * on
        tl.store(to, out.to(kind), mask=(e < E)[:, None] & seen[None, :])


@triton.jit
def scores_gradient(
    x_ptr, linear_ptr, bias_ptr, stats_ptr, small_ptr, y_ptr, mask_ptr, shift_ptr, to_ptr,
    heads, N, eps, linear_head, bias_head, small_batch, small_head,
    xb, xh, xc, xn, yb, yh, yc, yn, tb, th, tc, tn,
    D: tl.constexpr, E: tl.constexpr, C: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, BC: tl.constexpr,
    BN: tl.constexpr, MODE: tl.constexpr, LINEAR: tl.constexpr, BIAS: tl.constexpr, MASK: tl.constexpr,
    USED: tl.constexpr, SUM: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Gradients of the scores of a block of positions, when the weights' are a small matrix times y.

    Where a softmax is over positions, ``shift`` has of every row the sum over all positions of weights times their
    gradients. With SUM a block's share of that sum is made, and nothing else.
    """
    blocks = tl.cdiv(N, BN)
    pair, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    batch, head = pair // heads, pair % heads
    n = block * BN + tl.arange(0, BN)
    seen = n < N
    d = tl.arange(0, BD)
    top, total = statistics(stats_ptr, pair, d, D, USED)
    s = scores(
        x_ptr + batch * xb + head * xh, linear_ptr + head * linear_head, bias_ptr + head * bias_head,
        d, n, seen, xc, xn, D, C, BC, LINEAR, BIAS, PRECISION, WIDEN,
    )  # fmt: skip
    kept = seen
    if MASK:
        kept = kept & (tl.load(mask_ptr + batch * N + n, mask=seen, other=0) != 0)
    w, p, whole = weights(s, top, total, d, kept, eps, D, MODE)
    small_ptr += batch * small_batch + head * small_head
    y_ptr += batch * yb + head * yh
    g = tl.zeros([BD, BN], tl.float32)
    for step in range((E + BE - 1) // BE):
        e = step * BE + tl.arange(0, BE)
        small = tl.load(small_ptr + d[:, None] * E + e[None, :], mask=(d < D)[:, None] & (e < E)[None, :], other=0.0)
        at = y_ptr + e[:, None] * yc + n.to(tl.int64)[None, :] * yn
        y = tl.load(at, mask=(e < E)[:, None] & seen[None, :], other=0.0)
        g += product(small.to(y.dtype), y, PRECISION, WIDEN)
    if MODE == ROWS:
        g = w * (g - tl.sum(w * g, 0)[None, :])
    if MODE == PLAIN:
        g = tl.where(kept[None, :], g, 0.0) / total[:, None]
    if MODE == DOUBLE:
        g = (g - tl.sum(w * g, 0)[None, :]) / whole[None, :]
    if SUM:
        at = (block.to(tl.int64) * (tl.num_programs(0) // blocks) + pair) * D + d
        tl.store(to_ptr + at, tl.sum(p * g, 1), mask=d < D)
    else:
        if (MODE == DOUBLE) | (MODE == POSITIONS):
            shift = tl.load(shift_ptr + pair * D + d, mask=d < D, other=0.0)
            g = p * (g - shift[:, None])
        at = to_ptr + batch * tb + head * th + d[:, None] * tc + n.to(tl.int64)[None, :] * tn
        tl.store(at, g.to(to_ptr.dtype.element_ty), mask=(d < D)[:, None] & seen[None, :])
