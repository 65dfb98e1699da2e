"""Local attention: limits, the tiles under it, memory, derivatives that do not exist, errors."""

import random

import pytest
import torch
from torch.testing import assert_close

from foveal import BackendError, OptionError, ShapeError, dot_product_attention, local_attention
from foveal.analysis import peak_memory
from foveal.kernels import cpu
from foveal.kernels.pytorch import local as kernel
from foveal.kernels.pytorch.tiles import add_keys, cut_keys, cut_queries, join_queries, parts, plan


def maps(space, batch=2, heads=2, depth=4, dtype=torch.float64):
    return [torch.randn(batch, heads, depth, *space, dtype=dtype) for _ in range(3)]


@pytest.mark.parametrize("space", [(1,), (9,), (4, 6), (2, 3, 4)], ids=str)
def test_a_window_over_the_whole_map_is_dot_product_attention(space):
    q, k, v = maps(space)
    window = [2 * length - 1 for length in space]
    tables = [torch.randn(2, size, 4, dtype=q.dtype) for size in window]
    got = local_attention(q, k, v, kernel_size=window, relative=tables, scale=0.5, border="mask")
    assert_close(got, dot_product_attention(q, k, v, relative=tables, scale=0.5))


def test_a_window_of_one_gives_the_values_back():
    q, k, v = maps((5, 3))
    assert_close(local_attention(q, k, v, kernel_size=1), v)


def test_equal_logits_average_the_window_and_count_the_padding_as_zeros():
    v = torch.arange(1.0, 6.0).reshape(1, 1, 1, 5)
    zero = torch.zeros_like(v)
    padded = local_attention(zero, zero, v, kernel_size=3)
    assert_close(padded.flatten(), torch.tensor([1.0, 2.0, 3.0, 4.0, 3.0]))
    masked = local_attention(zero, zero, v, kernel_size=3, border="mask")
    assert_close(masked.flatten(), torch.tensor([1.5, 2.0, 3.0, 4.0, 4.5]))


def test_moving_the_map_moves_the_result():
    q, k, v = maps((12, 10))
    still = local_attention(q, k, v, kernel_size=5)
    moved = local_attention(*(x.roll((1, 2), (3, 4)) for x in (q, k, v)), kernel_size=5)
    # Rows 2 to 8 and columns 2 to 5 see no border before or after.
    assert_close(moved[..., 3:10, 4:8], still[..., 2:9, 2:6])


def test_a_mask_keeps_masked_keys_out_of_every_result():
    q, k, v = maps((6, 7))
    mask = torch.rand(2, 6, 7) > 0.4
    poisoned = v.masked_fill(~mask[:, None, None], 1e9)
    got = local_attention(q, k, poisoned, kernel_size=3, mask=mask)
    assert_close(got, local_attention(q, k, v, kernel_size=3, mask=mask))


@pytest.mark.parametrize("seed", range(40))
def test_random_problems_equal_the_definition(seed):
    choose = random.Random(seed)
    torch.manual_seed(seed)
    axes = choose.choice([1, 2, 2, 3])
    space = tuple(choose.randint(1, {1: 80, 2: 19, 3: 7}[axes]) for _ in range(axes))
    window = [choose.choice([1, 3, 5, 7]) for _ in range(axes)]
    dilation = [choose.randint(1, 3) for _ in range(axes)]
    heads, depth = choose.randint(1, 3), choose.choice([axes, 4 * axes])
    q, k, v = (x.requires_grad_() for x in maps(space, choose.randint(1, 3), heads, depth))
    tables = [torch.randn(choose.choice([1, heads]), w, depth, dtype=q.dtype, requires_grad=True) for w in window]
    options = {
        "kernel_size": window,
        "dilation": dilation,
        "relative": choose.choice([None, tables]),
        "border": choose.choice(["zero", "mask"]),
        "mask": choose.choice([None, torch.rand(q.shape[0], *space) > 0.5]),
        "scale": choose.choice([1.0, 0.3]),
    }
    leaves = [q, k, v, *(options["relative"] or [])]
    results = []
    for backend in (None, "reference"):
        out = local_attention(q, k, v, **options, backend=backend)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for got, want in zip(*results, strict=True):
        assert_close(got, want, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("pairs", [1, 300, 1 << 30])
def test_the_blocking_does_not_change_the_result(monkeypatch, pairs):
    q, k, v = maps((11, 13))
    whole = local_attention(q, k, v, kernel_size=5)
    monkeypatch.setitem(kernel.PAIRS, "cpu", pairs)
    assert_close(local_attention(q, k, v, kernel_size=5), whole)


@pytest.mark.parametrize("space", [(9,), (7, 10), (3, 5, 4)], ids=str)
def test_folding_halos_back_is_the_adjoint_of_cutting_them(space):
    grid = plan(space, (3, 5, 1)[: len(space)])
    x = torch.randn(2, 3, 2, *space, dtype=torch.float64)
    padded = grid.pad_keys(x)
    cut = cut_keys(grid, padded)
    y = torch.randn_like(cut)
    back = torch.zeros_like(padded)
    add_keys(grid, y, back)
    assert_close((cut * y).sum(), (padded * back).sum())
    assert torch.equal(grid.crop_keys(padded), x)
    queries = grid.pad_queries(x)
    assert torch.equal(join_queries(grid, cut_queries(grid, queries), grid.count[0]), queries)


def test_parts_cover_every_tile_once():
    grid = plan((40, 9), (7, 7))
    for pairs in (1, 5000, 10**9):
        seen = torch.zeros(3, 4, grid.count[0], dtype=torch.int)
        for part in parts(grid, 3, 4, pairs):
            seen[part.batch, part.heads, part.rows] += 1
        assert (seen == 1).all()


def test_forward_and_backward_need_at_most_eight_times_the_memory_of_the_queries():
    q, k, v = (x.requires_grad_() for x in maps((56, 56), 8, 8, 8, torch.float32))
    upstream = torch.randn_like(v)
    result = 4 * q.nbytes

    def train():
        return torch.autograd.grad(local_attention(q, k, v, kernel_size=7), [q, k, v], upstream)

    assert peak_memory(train) - result <= 8 * q.nbytes


def test_derivatives_that_do_not_exist_raise_instead_of_giving_zeros():
    q, k, v = maps((4, 4))
    with pytest.raises(NotImplementedError, match="forward-mode derivatives are only available with backend='refere"):
        torch.func.jvp(lambda x: local_attention(x, k, v, kernel_size=3), (q,), (q,))
    tangent = torch.func.jvp(lambda x: local_attention(x, k, v, kernel_size=3, backend="reference"), (q,), (q,))[1]
    assert tangent.any()
    q.requires_grad_()
    (gradient,) = torch.autograd.grad(local_attention(q, k, v, kernel_size=3).sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        gradient.sum().backward()


@pytest.mark.skipif(cpu.WHY_NOT is not None, reason=str(cpu.WHY_NOT))
def test_second_derivatives_of_the_native_evaluation_raise_too():
    q, k, v = maps((4, 4), dtype=torch.float32)
    q.requires_grad_()
    out = local_attention(q, k, v, kernel_size=3, backend="native")
    (gradient,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives are only available with backend='reference'"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (ShapeError, "local_attention: kernel_size must be odd, got 6. Use 5 or 7; even windows", {"kernel_size": 6}),
        (ShapeError, "local_attention: kernel_size must be a positive integer, or one for each", {"kernel_size": [3]}),
        (ShapeError, "local_attention: dilation must be a positive integer", {"dilation": 0}),
        (OptionError, "local_attention: border must be one of zero, mask, got 'reflect'.", {"border": "reflect"}),
        (ShapeError, "local_attention: mask must be boolean (2, 4, 5), True for", {"mask": torch.ones(2, 4, 5)}),
        (
            ShapeError,
            "local_attention: relative needs one table for each of the 2 space axes",
            {"relative": [torch.ones(1, 3, 4)]},
        ),
        (
            ShapeError,
            "must sum to the query's depth 4 or each equal it, got [3, 3]",
            {"relative": [torch.ones(1, 3, 3).double()] * 2},
        ),
        (
            BackendError,
            "local_attention: there is no backend 'cuda'. Use None or one of native, triton, tiled",
            {"backend": "cuda"},
        ),
    ],
)
def test_errors_say_what_to_do(error, message, change):
    q, k, v = maps((4, 5))
    with pytest.raises(error) as caught:
        local_attention(q, k, v, **{"kernel_size": 3, **change})
    assert message in str(caught.value)


def test_maps_that_disagree_are_named():
    q, k, v = maps((4, 5))
    with pytest.raises(ShapeError, match=r"the shapes of q and k must be equal, got q \(2, 2, 4, 4, 5\), k"):
        local_attention(q, k[..., :4], v, kernel_size=3)
    with pytest.raises(ShapeError, match="space must be equal"):
        local_attention(q, k, v[..., :4], kernel_size=3)
    with pytest.raises(ShapeError, match=r"q must be \(batch, heads, depth, \*space\).*got \(2, 4, 5\)"):
        local_attention(q[:, 0, 0], k, v, kernel_size=3)
    with pytest.raises(ShapeError, match=r"must be floating point, got torch.int64. Convert it with .float\(\)"):
        local_attention(q.long(), k, v, kernel_size=3)
    with pytest.raises(ShapeError, match="Bring them to one type and device"):
        local_attention(q, k.float(), v, kernel_size=3)
