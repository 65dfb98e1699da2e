"""What local attention's kernels share: where a program's tile lies, what is around it, and products of blocks.

A map has three space axes here, leading ones of length 1 where there are fewer. Dilation D makes of every axis D maps
of the positions with equal residue, so a program's neighbours are always side by side.
Symbols, each once an axis: S length, D dilation, T tile, W window, r residue, o first place of the tile.
"""

# What Triton compiles is not Python: its values have no types that mypy knows.
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def place(pid, heads, S0, S1, S2, D0, D1, D2, T0: tl.constexpr, T1: tl.constexpr, T2: tl.constexpr):
    """Batch entry, head, and of every axis the residue and the first place of the tile. Heads go fastest."""
    head = pid % heads
    pid = pid // heads
    blocks = D2 * tl.cdiv(tl.cdiv(S2, D2), T2)
    b2 = pid % blocks
    pid = pid // blocks
    blocks = D1 * tl.cdiv(tl.cdiv(S1, D1), T1)
    b1 = pid % blocks
    pid = pid // blocks
    blocks = D0 * tl.cdiv(tl.cdiv(S0, D0), T0)
    b0 = pid % blocks
    return pid // blocks, head, b0 % D0, b1 % D1, b2 % D2, b0 // D0 * T0, b1 // D1 * T1, b2 // D2 * T2


@triton.jit
def inside(y0, y1, y2, S0, S1, S2, AXES: tl.constexpr):
    """Whether positions lie on the map; leading axes that the map does not have are not asked."""
    within = (y2 >= 0) & (y2 < S2)
    if AXES > 1:
        within = within & (y1 >= 0) & (y1 < S1)
    if AXES > 2:
        within = within & (y0 >= 0) & (y0 < S0)
    return within


@triton.jit
def offset(y0, y1, y2, s0, s1, s2, AXES: tl.constexpr, WIDE: tl.constexpr):
    """Of positions within one head's map; in 64 bits where 32 do not hold it."""
    if WIDE:
        y0, y1, y2 = y0.to(tl.int64), y1.to(tl.int64), y2.to(tl.int64)
    at = y2 * s2
    if AXES > 1:
        at += y1 * s1
    if AXES > 2:
        at += y0 * s0
    return at


@triton.jit
def base(batch, head, by_batch, by_head, ALIGN: tl.constexpr):
    """Offset of one head's map, a multiple of ALIGN: Triton by itself only sees multiples of 16 in strides."""
    return tl.multiple_of(batch.to(tl.int64) * by_batch + head.to(tl.int64) * by_head, ALIGN)


@triton.jit
def product(a, b, PRECISION: tl.constexpr, WIDEN: tl.constexpr):
    """a b with sums in float32. The interpreter multiplies bfloat16 as if it were integers, hence WIDEN."""
    if WIDEN:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def embedding(table_ptr, j, d, W: tl.constexpr, FIRST: tl.constexpr, DEPTH: tl.constexpr):
    """``(offsets, depth)`` of one head's table: zero for features of the query that do not meet it."""
    d = d - FIRST
    there = ((j >= 0) & (j < W))[:, None] & ((d >= 0) & (d < DEPTH))[None, :]
    return tl.load(table_ptr + j[:, None] * DEPTH + d[None, :], mask=there, other=0.0)
