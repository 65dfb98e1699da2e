"""Local attention on matrix units: a tile's queries meet the keys of its halo in products of blocks.

Pairs outside the window are computed too and weigh nothing. The tables meet the queries in one product; the logits of
every offset are then brought to every place of the halo, and a product with the blocks' one-hot places spreads them
over the pairs. The same product backwards sums the pairs' gradients. Gradients of keys and values are gathered: a
tile of keys meets the queries of its halo, so nothing is added by two programs.
Symbols: as in ``places``; P positions of a tile, BK places of the halo together, C its length along an axis padded.
"""

# What Triton compiles is not Python: its values have no types that mypy knows.
# mypy: ignore-errors

import triton
import triton.language as tl

from foveal.kernels.triton.local_gather import positions
from foveal.kernels.triton.places import base, embedding, inside, offset, place, product


@triton.jit
def halo(step, BK: tl.constexpr, H0: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr):
    """Some places of it: whether they are in it, and where along each axis."""
    n = step * BK + tl.arange(0, BK)
    return n < H0 * H1 * H2, n // (H1 * H2), (n // H2) % H1, n % H2


@triton.jit
def near(i, c, W: tl.constexpr):
    """``(P, BK)``: whether places of the halo are in the windows of the tile's positions, along one axis."""
    gap = c[None, :] - i[:, None]
    return (gap >= 0) & (gap < W)


@triton.jit
def logits_of_places(
    q, r, i, W: tl.constexpr, WP: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr
):
    """``(P, C)``: q.r of the offset at which each query sees each place of the halo along one axis."""
    by_offset = product(q, tl.trans(r), PRECISION, WIDEN)
    gap = tl.arange(0, C)[None, :] - i[:, None]
    return tl.gather(by_offset, tl.minimum(tl.maximum(gap, 0), WP - 1), 1)


@triton.jit
def hot(c, C: tl.constexpr):
    """``(C, BK)``: one where a place of the block is that place of the axis."""
    return (tl.arange(0, C)[:, None] == c[None, :]).to(tl.float32)


@triton.jit
def forward(
    q_ptr, k_ptr, v_ptr, r0_ptr, r1_ptr, r2_ptr, mask_ptr, out_ptr, lse_ptr,
    heads, S0, S1, S2, D0, D1, D2, scale, rh0, rh1, rh2,
    qb, qh, qd, q0, q1, q2, kb, kh, kd, k0, k1, k2, vb, vh, vd, v0, v1, v2, ob, oh, od, o0, o1, o2,
    T0: tl.constexpr, T1: tl.constexpr, T2: tl.constexpr, W0: tl.constexpr, W1: tl.constexpr, W2: tl.constexpr,
    F0: tl.constexpr, F1: tl.constexpr, F2: tl.constexpr, G0: tl.constexpr, G1: tl.constexpr, G2: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, DP: tl.constexpr, EP: tl.constexpr, CH: tl.constexpr, AXES: tl.constexpr,
    REL: tl.constexpr, MASK: tl.constexpr, BORDER: tl.constexpr, WIDE: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, ALIGN: tl.constexpr,
    C0: tl.constexpr, C1: tl.constexpr, C2: tl.constexpr, WP0: tl.constexpr, WP1: tl.constexpr, WP2: tl.constexpr,
    SPREAD: tl.constexpr,
):  # fmt: skip
    """The result, and beside it log2 of the sum of 2^logits for the backward."""
    batch, head, a0, a1, a2, t0, t1, t2 = place(tl.program_id(0), heads, S0, S1, S2, D0, D1, D2, T0, T1, T2)
    i0, i1, i2 = positions(T0, T1, T2)
    x0, x1, x2 = a0 + D0 * (t0 + i0), a1 + D1 * (t1 + i1), a2 + D2 * (t2 + i2)
    own = inside(x0, x1, x2, S0, S1, S2, AXES)
    d, e = tl.arange(0, DP), tl.arange(0, EP)
    at = base(batch, head, qb, qh, ALIGN) + offset(x0, x1, x2, q0, q1, q2, AXES, WIDE)
    q = tl.load(q_ptr + at[:, None] + (d * qd)[None, :], mask=own[:, None] & (d < D)[None, :], other=0.0)
    k_ptr += base(batch, head, kb, kh, ALIGN)
    v_ptr += base(batch, head, vb, vh, ALIGN)
    mask_ptr += batch.to(tl.int64) * S0 * S1 * S2
    if REL:
        r2 = embedding(r2_ptr + head * rh2, tl.arange(0, WP2), d, W2, F2, G2).to(q.dtype)
        bias2 = logits_of_places(q, r2, i2, W2, WP2, C2, PRECISION, WIDEN)
        if AXES > 1:
            r1 = embedding(r1_ptr + head * rh1, tl.arange(0, WP1), d, W1, F1, G1).to(q.dtype)
            bias1 = logits_of_places(q, r1, i1, W1, WP1, C1, PRECISION, WIDEN)
        if AXES > 2:
            r0 = embedding(r0_ptr + head * rh0, tl.arange(0, WP0), d, W0, F0, G0).to(q.dtype)
            bias0 = logits_of_places(q, r0, i0, W0, WP0, C0, PRECISION, WIDEN)
    top = tl.full([T0 * T1 * T2], -float("inf"), tl.float32)
    total = tl.zeros([T0 * T1 * T2], tl.float32)
    sums = tl.zeros([T0 * T1 * T2, EP], tl.float32)
    H0: tl.constexpr = T0 + W0 - 1
    H1: tl.constexpr = T1 + W1 - 1
    H2: tl.constexpr = T2 + W2 - 1
    for step in range((H0 * H1 * H2 + CH - 1) // CH):
        there, c0, c1, c2 = halo(step, CH, H0, H1, H2)
        y0, y1, y2 = a0 + D0 * (t0 + c0 - W0 // 2), a1 + D1 * (t1 + c1 - W1 // 2), a2 + D2 * (t2 + c2 - W2 // 2)
        seen = there & inside(y0, y1, y2, S0, S1, S2, AXES)
        kept = there
        if BORDER:
            kept = seen
        if MASK:
            allowed = tl.load(mask_ptr + offset(y0, y1, y2, S1 * S2, S2, 1, AXES, WIDE), mask=seen, other=0)
            kept = kept & ((allowed != 0) | (seen == 0))
        spot = offset(y0, y1, y2, k0, k1, k2, AXES, WIDE)
        k = tl.load(k_ptr + spot[None, :] + (d * kd)[:, None], mask=seen[None, :] & (d < D)[:, None], other=0.0)
        logits = product(q, k, PRECISION, WIDEN)
        met = kept[None, :] & near(i2, c2, W2)
        if AXES > 1:
            met = met & near(i1, c1, W1)
        if AXES > 2:
            met = met & near(i0, c0, W0)
        if REL:
            logits += tl.dot(bias2, hot(c2, C2), input_precision=SPREAD)
            if AXES > 1:
                logits += tl.dot(bias1, hot(c1, C1), input_precision=SPREAD)
            if AXES > 2:
                logits += tl.dot(bias0, hot(c0, C0), input_precision=SPREAD)
        logits = tl.where(met, logits * scale, -float("inf"))
        higher = tl.maximum(top, tl.max(logits, 1))
        level = tl.where(higher == -float("inf"), 0.0, higher)
        p = tl.exp2(logits - level[:, None])
        shrink = tl.exp2(top - level)
        total = total * shrink + tl.sum(p, 1)
        spot = offset(y0, y1, y2, v0, v1, v2, AXES, WIDE)
        v = tl.load(v_ptr + spot[:, None] + (e * vd)[None, :], mask=seen[:, None] & (e < E)[None, :], other=0.0)
        sums = sums * shrink[:, None] + product(p.to(v.dtype), v, PRECISION, WIDEN)
        top = higher
    none = total == 0.0
    out = sums / tl.where(none, 1.0, total)[:, None]
    at = base(batch, head, ob, oh, ALIGN) + offset(x0, x1, x2, o0, o1, o2, AXES, WIDE)
    own_e = own[:, None] & (e < E)[None, :]
    tl.store(out_ptr + at[:, None] + (e * od)[None, :], out.to(out_ptr.dtype.element_ty), mask=own_e)
    lse = tl.where(none, float("inf"), top + tl.log2(tl.where(none, 1.0, total)))
    at = (batch * heads + head).to(tl.int64) * S0 * S1 * S2 + offset(x0, x1, x2, S1 * S2, S2, 1, AXES, WIDE)
    tl.store(lse_ptr + at, lse, mask=own)


@triton.jit
def table_gradient(
    ptr, by_place, q, r, dq, i, d,
    W: tl.constexpr, WP: tl.constexpr, C: tl.constexpr, FIRST: tl.constexpr, DEPTH: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Stores this tile's gradient of one table and returns the queries' with what comes from it."""
    j = tl.arange(0, WP)
    at = tl.minimum(j[None, :] + i[:, None], C - 1)
    by_offset = tl.where((j < W)[None, :], tl.gather(by_place, at, 1), 0.0).to(q.dtype)
    table = product(tl.trans(by_offset), q, PRECISION, WIDEN)
    there = (j < W)[:, None] & ((d >= FIRST) & (d < FIRST + DEPTH))[None, :]
    return dq + product(by_offset, r, PRECISION, WIDEN), table, there, ptr + j[:, None] * DEPTH + (d - FIRST)[None, :]


@triton.jit
def backward_queries(
    g_ptr, out_ptr, lse_ptr, q_ptr, k_ptr, v_ptr, r0_ptr, r1_ptr, r2_ptr, mask_ptr, dq_ptr, delta_ptr, tables_ptr,
    heads, S0, S1, S2, D0, D1, D2, scale, rh0, rh1, rh2,
    gb, gh, gd, g0, g1, g2, ob, oh, od, o0, o1, o2,
    qb, qh, qd, q0, q1, q2, kb, kh, kd, k0, k1, k2, vb, vh, vd, v0, v1, v2, db, dh, dd, d0, d1, d2,
    T0: tl.constexpr, T1: tl.constexpr, T2: tl.constexpr, W0: tl.constexpr, W1: tl.constexpr, W2: tl.constexpr,
    F0: tl.constexpr, F1: tl.constexpr, F2: tl.constexpr, G0: tl.constexpr, G1: tl.constexpr, G2: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, DP: tl.constexpr, EP: tl.constexpr, CH: tl.constexpr, AXES: tl.constexpr,
    REL: tl.constexpr, MASK: tl.constexpr, BORDER: tl.constexpr, WIDE: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, ALIGN: tl.constexpr,
    C0: tl.constexpr, C1: tl.constexpr, C2: tl.constexpr, WP0: tl.constexpr, WP1: tl.constexpr, WP2: tl.constexpr,
    SPREAD: tl.constexpr,
):  # fmt: skip
    """Gradients of the queries, this tile's share of those of the tables, and g.out for ``backward_keys``."""
    pid = tl.program_id(0)
    batch, head, a0, a1, a2, t0, t1, t2 = place(pid, heads, S0, S1, S2, D0, D1, D2, T0, T1, T2)
    i0, i1, i2 = positions(T0, T1, T2)
    x0, x1, x2 = a0 + D0 * (t0 + i0), a1 + D1 * (t1 + i1), a2 + D2 * (t2 + i2)
    own = inside(x0, x1, x2, S0, S1, S2, AXES)
    d, e = tl.arange(0, DP), tl.arange(0, EP)
    own_d, own_e = own[:, None] & (d < D)[None, :], own[:, None] & (e < E)[None, :]
    at = base(batch, head, qb, qh, ALIGN) + offset(x0, x1, x2, q0, q1, q2, AXES, WIDE)
    q = tl.load(q_ptr + at[:, None] + (d * qd)[None, :], mask=own_d, other=0.0)
    at = base(batch, head, gb, gh, ALIGN) + offset(x0, x1, x2, g0, g1, g2, AXES, WIDE)
    g = tl.load(g_ptr + at[:, None] + (e * gd)[None, :], mask=own_e, other=0.0)
    at = base(batch, head, ob, oh, ALIGN) + offset(x0, x1, x2, o0, o1, o2, AXES, WIDE)
    out = tl.load(out_ptr + at[:, None] + (e * od)[None, :], mask=own_e, other=0.0)
    delta = tl.sum(g.to(tl.float32) * out.to(tl.float32), 1)
    at = (batch * heads + head).to(tl.int64) * S0 * S1 * S2 + offset(x0, x1, x2, S1 * S2, S2, 1, AXES, WIDE)
    tl.store(delta_ptr + at, delta, mask=own)
    lse = tl.load(lse_ptr + at, mask=own, other=float("inf"))
    k_ptr += base(batch, head, kb, kh, ALIGN)
    v_ptr += base(batch, head, vb, vh, ALIGN)
    mask_ptr += batch.to(tl.int64) * S0 * S1 * S2
    dq = tl.zeros([T0 * T1 * T2, DP], tl.float32)
    if REL:
        r2 = embedding(r2_ptr + head * rh2, tl.arange(0, WP2), d, W2, F2, G2).to(q.dtype)
        bias2 = logits_of_places(q, r2, i2, W2, WP2, C2, PRECISION, WIDEN)
        along2 = tl.zeros([T0 * T1 * T2, C2], tl.float32)
        if AXES > 1:
            r1 = embedding(r1_ptr + head * rh1, tl.arange(0, WP1), d, W1, F1, G1).to(q.dtype)
            bias1 = logits_of_places(q, r1, i1, W1, WP1, C1, PRECISION, WIDEN)
            along1 = tl.zeros([T0 * T1 * T2, C1], tl.float32)
        if AXES > 2:
            r0 = embedding(r0_ptr + head * rh0, tl.arange(0, WP0), d, W0, F0, G0).to(q.dtype)
            bias0 = logits_of_places(q, r0, i0, W0, WP0, C0, PRECISION, WIDEN)
            along0 = tl.zeros([T0 * T1 * T2, C0], tl.float32)
    H0: tl.constexpr = T0 + W0 - 1
    H1: tl.constexpr = T1 + W1 - 1
    H2: tl.constexpr = T2 + W2 - 1
    for step in range((H0 * H1 * H2 + CH - 1) // CH):
        there, c0, c1, c2 = halo(step, CH, H0, H1, H2)
        y0, y1, y2 = a0 + D0 * (t0 + c0 - W0 // 2), a1 + D1 * (t1 + c1 - W1 // 2), a2 + D2 * (t2 + c2 - W2 // 2)
        seen = there & inside(y0, y1, y2, S0, S1, S2, AXES)
        kept = there
        if BORDER:
            kept = seen
        if MASK:
            allowed = tl.load(mask_ptr + offset(y0, y1, y2, S1 * S2, S2, 1, AXES, WIDE), mask=seen, other=0)
            kept = kept & ((allowed != 0) | (seen == 0))
        spot = offset(y0, y1, y2, k0, k1, k2, AXES, WIDE)
        k = tl.load(k_ptr + spot[None, :] + (d * kd)[:, None], mask=seen[None, :] & (d < D)[:, None], other=0.0)
        logits = product(q, k, PRECISION, WIDEN)
        met = kept[None, :] & near(i2, c2, W2)
        if AXES > 1:
            met = met & near(i1, c1, W1)
        if AXES > 2:
            met = met & near(i0, c0, W0)
        if REL:
            hot2 = hot(c2, C2)
            logits += tl.dot(bias2, hot2, input_precision=SPREAD)
            if AXES > 1:
                hot1 = hot(c1, C1)
                logits += tl.dot(bias1, hot1, input_precision=SPREAD)
            if AXES > 2:
                hot0 = hot(c0, C0)
                logits += tl.dot(bias0, hot0, input_precision=SPREAD)
        p = tl.where(met, tl.exp2(tl.minimum(logits * scale - lse[:, None], 0.0)), 0.0)
        spot = offset(y0, y1, y2, v0, v1, v2, AXES, WIDE)
        v = tl.load(v_ptr + spot[None, :] + (e * vd)[:, None], mask=seen[None, :] & (e < E)[:, None], other=0.0)
        ds = p * (product(g, v, PRECISION, WIDEN) - delta[:, None])
        dq += product(ds.to(k.dtype), tl.trans(k), PRECISION, WIDEN)
        if REL:
            along2 += tl.dot(ds, tl.trans(hot2), input_precision=SPREAD)
            if AXES > 1:
                along1 += tl.dot(ds, tl.trans(hot1), input_precision=SPREAD)
            if AXES > 2:
                along0 += tl.dot(ds, tl.trans(hot0), input_precision=SPREAD)
    # The logits' scale is in powers of two.
    natural = scale * 0.6931471805599453
    if REL:
        tables_ptr += pid.to(tl.int64) * (W0 * G0 + W1 * G1 + W2 * G2)
        if AXES > 2:
            dq, table, there, to = table_gradient(tables_ptr, along0, q, r0, dq, i0, d,
                                                  W0, WP0, C0, F0, G0, PRECISION, WIDEN)  # fmt: skip
            tl.store(to, table * natural, mask=there)
        if AXES > 1:
            dq, table, there, to = table_gradient(tables_ptr + W0 * G0, along1, q, r1, dq, i1, d,
                                                  W1, WP1, C1, F1, G1, PRECISION, WIDEN)  # fmt: skip
            tl.store(to, table * natural, mask=there)
        dq, table, there, to = table_gradient(tables_ptr + W0 * G0 + W1 * G1, along2, q, r2, dq, i2, d,
                                              W2, WP2, C2, F2, G2, PRECISION, WIDEN)  # fmt: skip
        tl.store(to, table * natural, mask=there)
    at = base(batch, head, db, dh, ALIGN) + offset(x0, x1, x2, d0, d1, d2, AXES, WIDE)
    tl.store(dq_ptr + at[:, None] + (d * dd)[None, :], (dq * natural).to(dq_ptr.dtype.element_ty), mask=own_d)


@triton.jit
def logits_of_keys(
    q, r, c, W: tl.constexpr, WP: tl.constexpr, TP: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr
):
    """``(BK, TP)``: q.r of the offset at which each query of the halo sees each place of the tile along one axis."""
    by_offset = product(q, tl.trans(r), PRECISION, WIDEN)
    j = tl.arange(0, TP)[None, :] - c[:, None] + (W - 1)
    return tl.gather(by_offset, tl.minimum(tl.maximum(j, 0), WP - 1), 1)


@triton.jit
def backward_keys(
    g_ptr, lse_ptr, delta_ptr, q_ptr, k_ptr, v_ptr, r0_ptr, r1_ptr, r2_ptr, mask_ptr, dk_ptr, dv_ptr,
    heads, S0, S1, S2, D0, D1, D2, scale, rh0, rh1, rh2,
    gb, gh, gd, g0, g1, g2, qb, qh, qd, q0, q1, q2, kb, kh, kd, k0, k1, k2, vb, vh, vd, v0, v1, v2,
    ab, ah, ad, a0, a1, a2, bb, bh, bd, b0, b1, b2,
    T0: tl.constexpr, T1: tl.constexpr, T2: tl.constexpr, W0: tl.constexpr, W1: tl.constexpr, W2: tl.constexpr,
    F0: tl.constexpr, F1: tl.constexpr, F2: tl.constexpr, G0: tl.constexpr, G1: tl.constexpr, G2: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, DP: tl.constexpr, EP: tl.constexpr, CH: tl.constexpr, AXES: tl.constexpr,
    REL: tl.constexpr, MASK: tl.constexpr, BORDER: tl.constexpr, WIDE: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, ALIGN: tl.constexpr,
    TP0: tl.constexpr, TP1: tl.constexpr, TP2: tl.constexpr,
    WP0: tl.constexpr, WP1: tl.constexpr, WP2: tl.constexpr, SPREAD: tl.constexpr,
):  # fmt: skip
    """Gradients of keys and values: a tile of keys meets the queries around it. ``a`` strides dk, ``b`` strides dv."""
    batch, head, c0, c1, c2, t0, t1, t2 = place(tl.program_id(0), heads, S0, S1, S2, D0, D1, D2, T0, T1, T2)
    i0, i1, i2 = positions(T0, T1, T2)
    x0, x1, x2 = c0 + D0 * (t0 + i0), c1 + D1 * (t1 + i1), c2 + D2 * (t2 + i2)
    own = inside(x0, x1, x2, S0, S1, S2, AXES)
    d, e = tl.arange(0, DP), tl.arange(0, EP)
    own_d, own_e = own[:, None] & (d < D)[None, :], own[:, None] & (e < E)[None, :]
    at = base(batch, head, kb, kh, ALIGN) + offset(x0, x1, x2, k0, k1, k2, AXES, WIDE)
    k = tl.load(k_ptr + at[:, None] + (d * kd)[None, :], mask=own_d, other=0.0)
    at = base(batch, head, vb, vh, ALIGN) + offset(x0, x1, x2, v0, v1, v2, AXES, WIDE)
    v = tl.load(v_ptr + at[:, None] + (e * vd)[None, :], mask=own_e, other=0.0)
    kept = own
    if MASK:
        at = batch.to(tl.int64) * S0 * S1 * S2 + offset(x0, x1, x2, S1 * S2, S2, 1, AXES, WIDE)
        kept = tl.load(mask_ptr + at, mask=own, other=0) != 0
    q_ptr += base(batch, head, qb, qh, ALIGN)
    g_ptr += base(batch, head, gb, gh, ALIGN)
    flat = (batch * heads + head).to(tl.int64) * S0 * S1 * S2
    if REL:
        r2 = embedding(r2_ptr + head * rh2, tl.arange(0, WP2), d, W2, F2, G2).to(k.dtype)
        hot2 = tl.trans(hot(i2, TP2))
        if AXES > 1:
            r1 = embedding(r1_ptr + head * rh1, tl.arange(0, WP1), d, W1, F1, G1).to(k.dtype)
            hot1 = tl.trans(hot(i1, TP1))
        if AXES > 2:
            r0 = embedding(r0_ptr + head * rh0, tl.arange(0, WP0), d, W0, F0, G0).to(k.dtype)
            hot0 = tl.trans(hot(i0, TP0))
    dk = tl.zeros([T0 * T1 * T2, DP], tl.float32)
    dv = tl.zeros([T0 * T1 * T2, EP], tl.float32)
    H0: tl.constexpr = T0 + W0 - 1
    H1: tl.constexpr = T1 + W1 - 1
    H2: tl.constexpr = T2 + W2 - 1
    for step in range((H0 * H1 * H2 + CH - 1) // CH):
        there, n0, n1, n2 = halo(step, CH, H0, H1, H2)
        y0, y1, y2 = c0 + D0 * (t0 + n0 - W0 // 2), c1 + D1 * (t1 + n1 - W1 // 2), c2 + D2 * (t2 + n2 - W2 // 2)
        seen = there & inside(y0, y1, y2, S0, S1, S2, AXES)
        spot = offset(y0, y1, y2, q0, q1, q2, AXES, WIDE)
        q = tl.load(q_ptr + spot[:, None] + (d * qd)[None, :], mask=seen[:, None] & (d < D)[None, :], other=0.0)
        logits = product(k, tl.trans(q), PRECISION, WIDEN)
        # A query sees a key where the key's window holds the query, windows being odd.
        met = kept[:, None] & seen[None, :] & near(i2, n2, W2)
        if AXES > 1:
            met = met & near(i1, n1, W1)
        if AXES > 2:
            met = met & near(i0, n0, W0)
        if REL:
            bias = logits_of_keys(q, r2, n2, W2, WP2, TP2, PRECISION, WIDEN)
            logits += tl.dot(hot2, tl.trans(bias), input_precision=SPREAD)
            if AXES > 1:
                bias = logits_of_keys(q, r1, n1, W1, WP1, TP1, PRECISION, WIDEN)
                logits += tl.dot(hot1, tl.trans(bias), input_precision=SPREAD)
            if AXES > 2:
                bias = logits_of_keys(q, r0, n0, W0, WP0, TP0, PRECISION, WIDEN)
                logits += tl.dot(hot0, tl.trans(bias), input_precision=SPREAD)
        spot = flat + offset(y0, y1, y2, S1 * S2, S2, 1, AXES, WIDE)
        lse = tl.load(lse_ptr + spot, mask=seen, other=float("inf"))
        delta = tl.load(delta_ptr + spot, mask=seen, other=0.0)
        p = tl.where(met, tl.exp2(tl.minimum(logits * scale - lse[None, :], 0.0)), 0.0)
        spot = offset(y0, y1, y2, g0, g1, g2, AXES, WIDE)
        g = tl.load(g_ptr + spot[:, None] + (e * gd)[None, :], mask=seen[:, None] & (e < E)[None, :], other=0.0)
        dv += product(p.to(g.dtype), g, PRECISION, WIDEN)
        ds = p * (product(v, tl.trans(g), PRECISION, WIDEN) - delta[None, :])
        dk += product(ds.to(q.dtype), q, PRECISION, WIDEN)
    at = base(batch, head, ab, ah, ALIGN) + offset(x0, x1, x2, a0, a1, a2, AXES, WIDE)
    dk *= scale * 0.6931471805599453
    tl.store(dk_ptr + at[:, None] + (d * ad)[None, :], dk.to(dk_ptr.dtype.element_ty), mask=own_d)
    at = base(batch, head, bb, bh, ALIGN) + offset(x0, x1, x2, b0, b1, b2, AXES, WIDE)
    tl.store(dv_ptr + at[:, None] + (e * bd)[None, :], dv.to(dv_ptr.dtype.element_ty), mask=own_e)
