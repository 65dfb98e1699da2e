"""Local attention on CUDA cores, for heads of small depth: every position meets its window, some offsets at a time.

Matrix units would have to compute a tile's queries with all keys around it, several times the window's pairs, and
pad a small depth to 16. Here only the window's pairs are computed. Gradients of keys and values are gathered: a key
meets the queries that see it, so nothing is added by two programs.
Symbols: as in ``places``; P positions of a tile, CH offsets of the window together, d and e channels of q and v.
"""

# What Triton compiles is not Python: its values have no types that mypy knows.
# mypy: ignore-errors

import triton
import triton.language as tl

from foveal.kernels.triton.places import base, embedding, inside, offset, place


@triton.jit
def positions(T0: tl.constexpr, T1: tl.constexpr, T2: tl.constexpr):
    """Of a tile, along each axis."""
    i = tl.arange(0, T0 * T1 * T2)
    return i // (T1 * T2), (i // T2) % T1, i % T2


@triton.jit
def offsets(step, CH: tl.constexpr, W1: tl.constexpr, W2: tl.constexpr):
    """Some of the window, along each axis."""
    j = step * CH + tl.arange(0, CH)
    return j, j // (W1 * W2), (j // W2) % W1, j % W2


@triton.jit
def embeddings(
    r0_ptr, r1_ptr, r2_ptr, j0, j1, j2, d,
    W0: tl.constexpr, W1: tl.constexpr, W2: tl.constexpr, AXES: tl.constexpr,
    F0: tl.constexpr, F1: tl.constexpr, F2: tl.constexpr, G0: tl.constexpr, G1: tl.constexpr, G2: tl.constexpr,
):  # fmt: skip
    """``(CH, d)``: what the tables of all axes add to a key at these offsets."""
    r = embedding(r2_ptr, j2, d, W2, F2, G2).to(tl.float32)
    if AXES > 1:
        r += embedding(r1_ptr, j1, d, W1, F1, G1).to(tl.float32)
    if AXES > 2:
        r += embedding(r0_ptr, j0, d, W0, F0, G0).to(tl.float32)
    return r


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
):  # fmt: skip
    """The result, and beside it log2 of the sum of 2^logits for the backward."""
    batch, head, a0, a1, a2, t0, t1, t2 = place(tl.program_id(0), heads, S0, S1, S2, D0, D1, D2, T0, T1, T2)
    i0, i1, i2 = positions(T0, T1, T2)
    x0, x1, x2 = a0 + D0 * (t0 + i0), a1 + D1 * (t1 + i1), a2 + D2 * (t2 + i2)
    own = inside(x0, x1, x2, S0, S1, S2, AXES)
    d, e = tl.arange(0, DP), tl.arange(0, EP)
    at = base(batch, head, qb, qh, ALIGN) + offset(x0, x1, x2, q0, q1, q2, AXES, WIDE)
    q = tl.load(q_ptr + at[:, None] + (d * qd)[None, :], mask=own[:, None] & (d < D)[None, :], other=0.0)
    q = q.to(tl.float32) * scale
    k_ptr += base(batch, head, kb, kh, ALIGN)
    v_ptr += base(batch, head, vb, vh, ALIGN)
    mask_ptr += batch.to(tl.int64) * S0 * S1 * S2
    top = tl.full([T0 * T1 * T2], -float("inf"), tl.float32)
    total = tl.zeros([T0 * T1 * T2], tl.float32)
    sums = tl.zeros([T0 * T1 * T2, EP], tl.float32)
    for step in range((W0 * W1 * W2 + CH - 1) // CH):
        j, j0, j1, j2 = offsets(step, CH, W1, W2)
        y0 = x0[:, None] + (D0 * (j0 - W0 // 2))[None, :]
        y1 = x1[:, None] + (D1 * (j1 - W1 // 2))[None, :]
        y2 = x2[:, None] + (D2 * (j2 - W2 // 2))[None, :]
        met = own[:, None] & (j < W0 * W1 * W2)[None, :]
        seen = met & inside(y0, y1, y2, S0, S1, S2, AXES)
        kept = met
        if BORDER:
            kept = seen
        if MASK:
            allowed = tl.load(mask_ptr + offset(y0, y1, y2, S1 * S2, S2, 1, AXES, WIDE), mask=seen, other=0)
            kept = kept & ((allowed != 0) | (seen == 0))
        spot = offset(y0, y1, y2, k0, k1, k2, AXES, WIDE)
        there = seen[:, :, None] & (d < D)[None, None, :]
        k = tl.load(k_ptr + spot[:, :, None] + (d * kd)[None, None, :], mask=there, other=0.0).to(tl.float32)
        if REL:
            r = embeddings(r0_ptr + head * rh0, r1_ptr + head * rh1, r2_ptr + head * rh2, j0, j1, j2, d,
                           W0, W1, W2, AXES, F0, F1, F2, G0, G1, G2)  # fmt: skip
            k += r[None, :, :]
        logits = tl.where(kept, tl.sum(q[:, None, :] * k, 2), -float("inf"))
        higher = tl.maximum(top, tl.max(logits, 1))
        # Where nothing was seen yet, exp2(-inf - 0) gives the zeros that exp2(-inf - -inf) would not.
        level = tl.where(higher == -float("inf"), 0.0, higher)
        p = tl.exp2(logits - level[:, None])
        shrink = tl.exp2(top - level)
        total = total * shrink + tl.sum(p, 1)
        spot = offset(y0, y1, y2, v0, v1, v2, AXES, WIDE)
        there = seen[:, :, None] & (e < E)[None, None, :]
        v = tl.load(v_ptr + spot[:, :, None] + (e * vd)[None, None, :], mask=there, other=0.0).to(tl.float32)
        sums = sums * shrink[:, None] + tl.sum(p[:, :, None] * v, 1)
        top = higher
    none = total == 0.0
    out = sums / tl.where(none, 1.0, total)[:, None]
    at = base(batch, head, ob, oh, ALIGN) + offset(x0, x1, x2, o0, o1, o2, AXES, WIDE)
    there = own[:, None] & (e < E)[None, :]
    tl.store(out_ptr + at[:, None] + (e * od)[None, :], out.to(out_ptr.dtype.element_ty), mask=there)
    lse = tl.where(none, float("inf"), top + tl.log2(tl.where(none, 1.0, total)))
    at = (batch * heads + head).to(tl.int64) * S0 * S1 * S2 + offset(x0, x1, x2, S1 * S2, S2, 1, AXES, WIDE)
    tl.store(lse_ptr + at, lse, mask=own)


@triton.jit
def along(j, ds, WP: tl.constexpr):
    """``(P, WP)``: sums of what the offsets with each place along one axis got."""
    hot = j[:, None] == tl.arange(0, WP)[None, :]
    return tl.sum(tl.where(hot[None, :, :], ds[:, :, None], 0.0), 1)


@triton.jit
def store_table(ptr, own, q, W: tl.constexpr, WP: tl.constexpr, FIRST: tl.constexpr, DEPTH: tl.constexpr, d):
    """A table's gradient from this tile: ``(W, DEPTH)``."""
    j = tl.arange(0, WP)
    table = tl.sum(own[:, :, None] * q[:, None, :], 0)
    there = (j < W)[:, None] & ((d >= FIRST) & (d < FIRST + DEPTH))[None, :]
    tl.store(ptr + j[:, None] * DEPTH + (d - FIRST)[None, :], table, mask=there)


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
    WP0: tl.constexpr, WP1: tl.constexpr, WP2: tl.constexpr,
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
    q = tl.load(q_ptr + at[:, None] + (d * qd)[None, :], mask=own_d, other=0.0).to(tl.float32)
    at = base(batch, head, gb, gh, ALIGN) + offset(x0, x1, x2, g0, g1, g2, AXES, WIDE)
    g = tl.load(g_ptr + at[:, None] + (e * gd)[None, :], mask=own_e, other=0.0).to(tl.float32)
    at = base(batch, head, ob, oh, ALIGN) + offset(x0, x1, x2, o0, o1, o2, AXES, WIDE)
    out = tl.load(out_ptr + at[:, None] + (e * od)[None, :], mask=own_e, other=0.0).to(tl.float32)
    delta = tl.sum(g * out, 1)
    at = (batch * heads + head).to(tl.int64) * S0 * S1 * S2 + offset(x0, x1, x2, S1 * S2, S2, 1, AXES, WIDE)
    tl.store(delta_ptr + at, delta, mask=own)
    lse = tl.load(lse_ptr + at, mask=own, other=float("inf"))
    k_ptr += base(batch, head, kb, kh, ALIGN)
    v_ptr += base(batch, head, vb, vh, ALIGN)
    mask_ptr += batch.to(tl.int64) * S0 * S1 * S2
    dq = tl.zeros([T0 * T1 * T2, DP], tl.float32)
    if REL:
        along0 = tl.zeros([T0 * T1 * T2, WP0], tl.float32)
        along1 = tl.zeros([T0 * T1 * T2, WP1], tl.float32)
        along2 = tl.zeros([T0 * T1 * T2, WP2], tl.float32)
    for step in range((W0 * W1 * W2 + CH - 1) // CH):
        j, j0, j1, j2 = offsets(step, CH, W1, W2)
        y0 = x0[:, None] + (D0 * (j0 - W0 // 2))[None, :]
        y1 = x1[:, None] + (D1 * (j1 - W1 // 2))[None, :]
        y2 = x2[:, None] + (D2 * (j2 - W2 // 2))[None, :]
        met = own[:, None] & (j < W0 * W1 * W2)[None, :]
        seen = met & inside(y0, y1, y2, S0, S1, S2, AXES)
        kept = met
        if BORDER:
            kept = seen
        if MASK:
            allowed = tl.load(mask_ptr + offset(y0, y1, y2, S1 * S2, S2, 1, AXES, WIDE), mask=seen, other=0)
            kept = kept & ((allowed != 0) | (seen == 0))
        spot = offset(y0, y1, y2, k0, k1, k2, AXES, WIDE)
        there = seen[:, :, None] & (d < D)[None, None, :]
        k = tl.load(k_ptr + spot[:, :, None] + (d * kd)[None, None, :], mask=there, other=0.0).to(tl.float32)
        if REL:
            r = embeddings(r0_ptr + head * rh0, r1_ptr + head * rh1, r2_ptr + head * rh2, j0, j1, j2, d,
                           W0, W1, W2, AXES, F0, F1, F2, G0, G1, G2)  # fmt: skip
            k += r[None, :, :]
        logits = tl.sum((q * scale)[:, None, :] * k, 2)
        p = tl.where(kept, tl.exp2(tl.minimum(logits - lse[:, None], 0.0)), 0.0)
        spot = offset(y0, y1, y2, v0, v1, v2, AXES, WIDE)
        there = seen[:, :, None] & (e < E)[None, None, :]
        v = tl.load(v_ptr + spot[:, :, None] + (e * vd)[None, None, :], mask=there, other=0.0).to(tl.float32)
        ds = p * (tl.sum(g[:, None, :] * v, 2) - delta[:, None])
        dq += tl.sum(ds[:, :, None] * k, 1)
        if REL:
            along2 += along(j2, ds, WP2)
            if AXES > 1:
                along1 += along(j1, ds, WP1)
            if AXES > 2:
                along0 += along(j0, ds, WP0)
    # The logits' scale is in powers of two.
    natural = scale * 0.6931471805599453
    at = base(batch, head, db, dh, ALIGN) + offset(x0, x1, x2, d0, d1, d2, AXES, WIDE)
    tl.store(dq_ptr + at[:, None] + (d * dd)[None, :], (dq * natural).to(dq_ptr.dtype.element_ty), mask=own_d)
    if REL:
        q *= natural
        tables_ptr += pid.to(tl.int64) * (W0 * G0 + W1 * G1 + W2 * G2)
        if AXES > 2:
            store_table(tables_ptr, along0, q, W0, WP0, F0, G0, d)
        if AXES > 1:
            store_table(tables_ptr + W0 * G0, along1, q, W1, WP1, F1, G1, d)
        store_table(tables_ptr + W0 * G0 + W1 * G1, along2, q, W2, WP2, F2, G2, d)


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
):  # fmt: skip
    """Gradients of keys and values: each meets the queries that see it. ``a`` strides dk, ``b`` strides dv."""
    batch, head, c0, c1, c2, t0, t1, t2 = place(tl.program_id(0), heads, S0, S1, S2, D0, D1, D2, T0, T1, T2)
    i0, i1, i2 = positions(T0, T1, T2)
    x0, x1, x2 = c0 + D0 * (t0 + i0), c1 + D1 * (t1 + i1), c2 + D2 * (t2 + i2)
    own = inside(x0, x1, x2, S0, S1, S2, AXES)
    d, e = tl.arange(0, DP), tl.arange(0, EP)
    own_d, own_e = own[:, None] & (d < D)[None, :], own[:, None] & (e < E)[None, :]
    at = base(batch, head, kb, kh, ALIGN) + offset(x0, x1, x2, k0, k1, k2, AXES, WIDE)
    k = tl.load(k_ptr + at[:, None] + (d * kd)[None, :], mask=own_d, other=0.0).to(tl.float32)
    at = base(batch, head, vb, vh, ALIGN) + offset(x0, x1, x2, v0, v1, v2, AXES, WIDE)
    v = tl.load(v_ptr + at[:, None] + (e * vd)[None, :], mask=own_e, other=0.0).to(tl.float32)
    kept = own
    if MASK:
        at = batch.to(tl.int64) * S0 * S1 * S2 + offset(x0, x1, x2, S1 * S2, S2, 1, AXES, WIDE)
        kept = tl.load(mask_ptr + at, mask=own, other=0) != 0
    q_ptr += base(batch, head, qb, qh, ALIGN)
    g_ptr += base(batch, head, gb, gh, ALIGN)
    flat = (batch * heads + head).to(tl.int64) * S0 * S1 * S2
    dk = tl.zeros([T0 * T1 * T2, DP], tl.float32)
    dv = tl.zeros([T0 * T1 * T2, EP], tl.float32)
    for step in range((W0 * W1 * W2 + CH - 1) // CH):
        j, j0, j1, j2 = offsets(step, CH, W1, W2)
        y0 = x0[:, None] - (D0 * (j0 - W0 // 2))[None, :]
        y1 = x1[:, None] - (D1 * (j1 - W1 // 2))[None, :]
        y2 = x2[:, None] - (D2 * (j2 - W2 // 2))[None, :]
        seen = kept[:, None] & (j < W0 * W1 * W2)[None, :] & inside(y0, y1, y2, S0, S1, S2, AXES)
        spot = offset(y0, y1, y2, q0, q1, q2, AXES, WIDE)
        there = seen[:, :, None] & (d < D)[None, None, :]
        q = tl.load(q_ptr + spot[:, :, None] + (d * qd)[None, None, :], mask=there, other=0.0).to(tl.float32)
        met = k[:, None, :]
        if REL:
            r = embeddings(r0_ptr + head * rh0, r1_ptr + head * rh1, r2_ptr + head * rh2, j0, j1, j2, d,
                           W0, W1, W2, AXES, F0, F1, F2, G0, G1, G2)  # fmt: skip
            met = met + r[None, :, :]
        logits = tl.sum((q * scale) * met, 2)
        spot = flat + offset(y0, y1, y2, S1 * S2, S2, 1, AXES, WIDE)
        lse = tl.load(lse_ptr + spot, mask=seen, other=float("inf"))
        delta = tl.load(delta_ptr + spot, mask=seen, other=0.0)
        p = tl.where(seen, tl.exp2(tl.minimum(logits - lse, 0.0)), 0.0)
        spot = offset(y0, y1, y2, g0, g1, g2, AXES, WIDE)
        there = seen[:, :, None] & (e < E)[None, None, :]
        g = tl.load(g_ptr + spot[:, :, None] + (e * gd)[None, None, :], mask=there, other=0.0).to(tl.float32)
        dv += tl.sum(p[:, :, None] * g, 1)
        ds = p * (tl.sum(g * v[:, None, :], 2) - delta)
        dk += tl.sum(ds[:, :, None] * q, 1)
    at = base(batch, head, ab, ah, ALIGN) + offset(x0, x1, x2, a0, a1, a2, AXES, WIDE)
    dk *= scale * 0.6931471805599453
    tl.store(dk_ptr + at[:, None] + (d * ad)[None, :], dk.to(dk_ptr.dtype.element_ty), mask=own_d)
    at = base(batch, head, bb, bh, ALIGN) + offset(x0, x1, x2, b0, b1, b2, AXES, WIDE)
    tl.store(dv_ptr + at[:, None] + (e * bd)[None, :], dv.to(dv_ptr.dtype.element_ty), mask=own_e)
