"""Explicit attention with a separable decay: a map's channel stays on the chip between the products of its two axes.

Symbols: a channel V ``(rows, columns)`` becomes (A V B^T + offset sum V) * scale; L lengths, P lengths padded.
"""

# What Triton compiles is not Python: its values have no types that mypy knows.
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def square(ptr, head, by_head, L: tl.constexpr, P: tl.constexpr):
    """One head's matrix of an axis."""
    i = tl.arange(0, P)
    there = (i < L)[:, None] & (i < L)[None, :]
    return tl.load(ptr + head * by_head + i[:, None] * L + i[None, :], mask=there, other=0.0)


@triton.jit
def mix(
    v_ptr, a_ptr, b_ptr, scale_ptr, out_ptr, heads, channels, offset, ah, bh, sh,
    L0: tl.constexpr, L1: tl.constexpr, P0: tl.constexpr, P1: tl.constexpr,
    BACKWARD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One channel a program; backwards both matrices are transposed and the scale comes first."""
    plane = tl.program_id(0).to(tl.int64)
    head = plane // channels % heads
    i, j = tl.arange(0, P0), tl.arange(0, P1)
    there = (i < L0)[:, None] & (j < L1)[None, :]
    at = i[:, None] * L1 + j[None, :]
    v = tl.load(v_ptr + plane * L0 * L1 + at, mask=there, other=0.0).to(tl.float32)
    scale = tl.load(scale_ptr + head * sh + at, mask=there, other=0.0)
    a, b = square(a_ptr, head, ah, L0, P0), square(b_ptr, head, bh, L1, P1)
    if BACKWARD:
        v *= scale
        a = tl.trans(a)
    else:
        b = tl.trans(b)
    out = tl.dot(tl.dot(a, v, input_precision=PRECISION), b, input_precision=PRECISION)
    out += offset * tl.sum(tl.sum(v, 1), 0)
    if not BACKWARD:
        out *= scale
    tl.store(out_ptr + plane * L0 * L1 + at, out.to(out_ptr.dtype.element_ty), mask=there)


@triton.jit
def factors(
    g_ptr, v_ptr, a_ptr, b_ptr, scale_ptr, to_a_ptr, to_b_ptr, to_scale_ptr,
    heads, channels, planes, offset, ah, bh, sh, CHUNK: tl.constexpr,
    L0: tl.constexpr, L1: tl.constexpr, P0: tl.constexpr, P1: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A chunk's share of the gradients of both matrices and of the scale, for one head."""
    head, part = tl.program_id(0) % heads, tl.program_id(0) // heads
    i, j = tl.arange(0, P0), tl.arange(0, P1)
    there = (i < L0)[:, None] & (j < L1)[None, :]
    at = i[:, None] * L1 + j[None, :]
    scale = tl.load(scale_ptr + head * sh + at, mask=there, other=0.0)
    a, b = square(a_ptr, head, ah, L0, P0), square(b_ptr, head, bh, L1, P1)
    to_a = tl.zeros([P0, P0], tl.float32)
    to_b = tl.zeros([P1, P1], tl.float32)
    to_scale = tl.zeros([P0, P1], tl.float32)
    for step in range(CHUNK):
        n = part * CHUNK + step
        # Channels of all samples of this head, one after the other.
        plane = ((n // channels * heads + head) * channels + n % channels).to(tl.int64)
        here = there & ((n + 0 * i)[:, None] < planes)
        v = tl.load(v_ptr + plane * L0 * L1 + at, mask=here, other=0.0).to(tl.float32)
        g = tl.load(g_ptr + plane * L0 * L1 + at, mask=here, other=0.0).to(tl.float32)
        along = tl.dot(v, tl.trans(b), input_precision=PRECISION)
        mixed = tl.dot(a, along, input_precision=PRECISION) + offset * tl.sum(tl.sum(v, 1), 0)
        to_scale += g * mixed
        g *= scale
        to_a += tl.dot(g, tl.trans(along), input_precision=PRECISION)
        to_b += tl.dot(tl.trans(g), tl.dot(a, v, input_precision=PRECISION), input_precision=PRECISION)
    slot = tl.program_id(0).to(tl.int64)
    tl.store(to_scale_ptr + slot * L0 * L1 + at, to_scale, mask=there)
    at = i[:, None] * L0 + i[None, :]
    tl.store(to_a_ptr + slot * L0 * L0 + at, to_a, mask=(i < L0)[:, None] & (i < L0)[None, :])
    at = j[:, None] * L1 + j[None, :]
    tl.store(to_b_ptr + slot * L1 * L1 + at, to_b, mask=(j < L1)[:, None] & (j < L1)[None, :])
