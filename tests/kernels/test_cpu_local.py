"""Native local attention against its definition in float64: values and gradients, every shape and every layout."""

import math

import pytest
import torch
from torch.testing import assert_close

import foveal
from foveal.functional.local import packed_local_attention, packs, reference
from foveal.layers import local as layers
from kernels.native import LAYOUTS, laid_out, needs_kernels, same_bits

pytestmark = needs_kernels


def maps(space, batch=2, heads=2, depth=4, value_depth=None, layout="channels first", dtype=torch.float32):
    depths = (depth, depth, value_depth or depth)
    return [laid_out(torch.randn(batch, heads, d, *space).to(dtype), layout) for d in depths]


def tables(reading, window, heads, depth):
    if reading is None:
        return []
    axes = len(window)
    depths = [depth] * axes if reading == "whole" else [depth // axes + (a < depth % axes) for a in range(axes)]
    return [torch.randn(heads, w, d) for w, d in zip(window, depths, strict=True)]


def native(q, k, v, relative=(), *, upstream=None, **options):
    """The result and all gradients."""
    leaves = [x.detach().requires_grad_() for x in (q, k, v, *relative)]
    out = foveal.local_attention(*leaves[:3], relative=leaves[3:] or None, backend="native", **options)
    upstream = torch.ones_like(out) if upstream is None else upstream.to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


def definition(
    q, k, v, relative=(), *, kernel_size, upstream=None, dilation=1, scale=1.0, border="zero", mask=None,
    dtype=torch.float64,
):  # fmt: skip
    axes = q.dim() - 3
    window, steps = ([x] * axes if isinstance(x, int) else x for x in (kernel_size, dilation))
    leaves = [x.detach().to(dtype).requires_grad_() for x in (q, k, v, *relative)]
    out = reference(*leaves[:3], leaves[3:], mask, window, steps, scale, border == "mask")
    upstream = torch.ones_like(out) if upstream is None else upstream.to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


def assert_right(q, k, v, relative=(), *, tolerance=2e-5, **options):
    options.setdefault("upstream", torch.randn(v.shape))
    names = ["out", "q", "k", "v", *(f"table {i}" for i in range(len(relative)))]
    found = native(q, k, v, relative, **options), definition(q, k, v, relative, **options)
    for name, got, want in zip(names, *found, strict=True):
        largest = want.abs().max().item() if want.numel() else 0.0
        assert_close(
            got.double(), want, rtol=0, atol=tolerance * max(largest, 1.0), msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("space", [(7,), (5, 9), (1, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_maps_of_one_product_give_the_same_bits(space, layout, dtype):
    axes, heads, depth = len(space), 3, 4
    qkv = laid_out(torch.randn(2, 3 * heads, depth, *space).to(dtype), layout).requires_grad_()
    relative = [x.to(dtype).requires_grad_() for x in tables("split", [3] * axes, heads, depth)]
    settings = {"kernel_size": [3] * axes, "dilation": [2] * axes, "scale": 0.7, "border": "mask"}
    upstream = torch.randn(2, heads, depth, *space).to(dtype)
    assert packs(None, qkv, [3] * axes)
    together = packed_local_attention(qkv, relative=relative, **settings)
    apart = foveal.local_attention(*qkv.chunk(3, 1), relative=relative, backend="native", **settings)
    assert same_bits(together, apart)
    found = [torch.autograd.grad(out, [qkv, *relative], upstream) for out in (together, apart)]
    assert all(same_bits(a, b) for a, b in zip(*found, strict=True))


def test_a_batch_in_parts_gives_the_same_bits(monkeypatch):
    layer, x = foveal.LocalAttention(8, 8, heads=2, kernel_size=3, bias=True), torch.randn(5, 8, 6, 7)
    with torch.no_grad():
        whole = layer(x)
        monkeypatch.setattr(layers, "LARGEST_BLOCK", 3 * 8 * 42 * 4 * 2)
        assert layer._parts(x) == 3
        assert same_bits(layer(x), whole)
    assert layer._parts(x) == 1


def test_other_calls_are_not_packed():
    x = torch.randn(1, 4, 5, 5)
    assert not packs("tiled", x, [3, 3])
    assert not packs(None, x.double(), [3, 3])
    assert not packs(None, x[..., None], [3, 3, 3])


@pytest.mark.parametrize("reading", [None, "split", "whole"])
@pytest.mark.parametrize("window", [1, 3, 5, 7, 9, 11, 13, 15, (3, 7), (9, 1), (1, 5), (15, 3)], ids=str)
def test_every_window(window, reading):
    space = (11, 13)
    sizes = [window] * 2 if isinstance(window, int) else list(window)
    relative = tables(reading, sizes, 2, 4)
    assert_right(*maps(space), relative, kernel_size=sizes, scale=0.5, border="zero" if reading else "mask")


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 17, 31, 32, 64, 128])
@pytest.mark.parametrize("layout", ["channels first", "channels last"])
def test_every_depth(depth, layout):
    q, k, v = maps((5, 9), 2, 4, depth, max(1, depth // 2 + 1), layout)
    assert_right(q, k, v, tables("whole", [3, 5], 1, depth), kernel_size=[3, 5], scale=depth**-0.5)
    q, k, v = maps((4, 18), 1, 2, depth, 3, layout)
    assert_right(q, k, v, kernel_size=3, scale=depth**-0.5, border="mask")


@pytest.mark.parametrize("value_depth", [1, 3, 8, 20, 128])
def test_values_of_another_depth(value_depth):
    for layout in ("channels first", "channels last"):
        assert_right(*maps((6, 7), 2, 3, 4, value_depth, layout), kernel_size=5, scale=0.5)


@pytest.mark.parametrize("border", ["zero", "mask"])
@pytest.mark.parametrize("dilation", [2, 3, 8, (1, 2), (5, 1), (2, 30), (40, 40)], ids=str)
def test_dilation(dilation, border):
    relative = tables("split", [3, 5], 2, 4)
    mask = torch.rand(3, 8, 19) > 0.3
    for layout in ("channels first", "channels last"):
        options = {"kernel_size": [3, 5], "dilation": dilation, "border": border}
        assert_right(*maps((8, 19), 3, layout=layout), relative, **options)
        assert_right(*maps((8, 19), 3, layout=layout), relative, mask=mask, **options)


def test_a_dilation_beyond_all_maps_sees_the_centre_alone():
    q, k, v = maps((4, 5))
    far = native(q, k, v, kernel_size=5, dilation=2**31 - 1)
    for got, want in zip(far, native(q, k, v, kernel_size=5, dilation=5), strict=True):
        assert same_bits(got, want)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_layout_gives_the_same_bits(layout, dtype):
    torch.manual_seed(1)
    plain = maps((6, 17), 3, 2, 5, 7, dtype=dtype)
    relative = [x.to(dtype) for x in tables("whole", [5, 3], 2, 5)]
    upstream = torch.randn(3, 2, 7, 6, 17).to(dtype)
    want = native(*plain, relative, kernel_size=[5, 3], upstream=upstream)
    got = native(
        *(laid_out(x, layout) for x in plain),
        [laid_out(x.unsqueeze(3), "sliced").squeeze(3) for x in relative],
        kernel_size=[5, 3],
        upstream=laid_out(upstream, layout),
    )
    for a, b in zip(got[:4], want[:4], strict=True):
        assert same_bits(a, b)
    for a, b in zip(got[4:], want[4:], strict=True):
        assert_close(a, b)  # heads are grouped by layout, and tables are summed over groups


@pytest.mark.parametrize("axis", range(5))
def test_maps_expanded_along_an_axis(axis):
    shape = [2, 3, 4, 5, 6]
    expanded = [torch.randn([1 if a == axis else s for a, s in enumerate(shape)]).expand(shape) for _ in range(3)]
    assert_right(*expanded, kernel_size=3, scale=0.5, upstream=torch.randn(()).expand(shape))
    mixed = [expanded[0], *maps((5, 6), 2, 3, 4, layout="channels last")[1:]]
    assert_right(*mixed, kernel_size=3, scale=0.5)


def test_maps_of_different_layouts():
    layouts = ("channels last", "sliced", "transposed")
    q, k, v = (laid_out(x, layout) for x, layout in zip(maps((7, 9), value_depth=6), layouts, strict=True))
    assert_right(q, k, v, tables("split", [7, 7], 1, 4), kernel_size=7)
    assert_right(v[:, :, :4], q, k, tables("split", [7, 7], 2, 4), kernel_size=7)


@pytest.mark.parametrize("space", [(1, 1), (1, 23), (23, 1), (2, 2), (17, 19), (1, 64), (31, 3)], ids=str)
@pytest.mark.parametrize("border", ["zero", "mask"])
def test_tiny_and_prime_maps(space, border):
    for window in (1, 3, 7, 15):
        relative = tables("split", [window] * 2, 2, 4)
        assert_right(*maps(space, 1), relative, kernel_size=window, border=border, scale=0.5)


@pytest.mark.parametrize("length", [1, 2, 7, 16, 33, 61])
@pytest.mark.parametrize("reading", [None, "whole"])
def test_lines(length, reading):
    relative = tables(reading, [5], 3, 6)
    mask = torch.rand(2, length) > 0.4
    for layout in ("channels first", "channels last"):
        q, k, v = maps((length,), 2, 3, 6, 2, layout)
        assert_right(q, k, v, relative, kernel_size=5, dilation=2, border="mask")
        assert_right(q, k, v, relative, kernel_size=5, mask=mask)


@pytest.mark.parametrize("border", ["zero", "mask"])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.7, 1.0])
def test_masks(border, density):
    relative = tables("whole", [5, 3], 1, 4)
    mask = torch.rand(4, 9, 11) < density
    mask[1] = False
    mask[2, :5] = False  # whole windows without a key
    assert_right(*maps((9, 11), 4), relative, kernel_size=[5, 3], border=border, mask=mask)
    assert_right(*maps((9, 11), 4), relative, kernel_size=[5, 3], border=border, mask=mask.mT.contiguous().mT)


def test_nothing_to_attend_to_gives_zeros_and_finite_gradients():
    q, k, v = maps((5, 6))
    mask = torch.zeros(2, 5, 6, dtype=torch.bool)
    out, *grads = native(q, k, v, tables("whole", [3, 3], 2, 4), kernel_size=3, border="mask", mask=mask)
    assert not out.any()
    for grad in grads:
        assert not grad.any()


@pytest.mark.parametrize("heads", [1, 2, 3, 8])
@pytest.mark.parametrize("reading", ["split", "whole"])
@pytest.mark.parametrize("layout", ["channels first", "channels last"])
def test_tables_of_all_heads_and_of_one(heads, reading, layout):
    q, k, v = maps((6, 5), 2, heads, layout=layout)
    own, shared = tables(reading, [3, 5], heads, 4), tables(reading, [3, 5], 1, 4)
    for relative in (own, shared, [own[0], shared[1]], [shared[0], own[1]]):
        assert_right(q, k, v, relative, kernel_size=[3, 5])


@pytest.mark.parametrize("batch", range(10))
def test_images_that_stand_side_by_side(batch):
    mask = torch.rand(batch, 7, 7) > 0.3
    for layout in ("channels first", "channels last"):
        q, k, v = maps((7, 7), batch, 2, 4, layout=layout)
        relative = tables("split", [7, 7], 2, 4)
        assert_right(q, k, v, relative, kernel_size=7)
        assert_right(q, k, v, relative, kernel_size=7, border="mask", mask=mask)


def test_the_result_of_an_image_does_not_depend_on_the_images_beside_it():
    q, k, v = maps((7, 7), 5)
    together = native(q, k, v, kernel_size=7)
    for i in range(5):
        for got, want in zip(native(*(x[i : i + 1] for x in (q, k, v)), kernel_size=7), together, strict=True):
            assert_close(got, want[i : i + 1])


def test_a_call_without_gradients_gives_the_same_bits():
    q, k, v = maps((9, 10))
    options = {"kernel_size": 5, "relative": tables("whole", [5, 5], 2, 4)}
    out = native(q, k, v, options["relative"], kernel_size=5)[0]
    assert same_bits(foveal.local_attention(q, k, v, backend="native", **options), out)


@pytest.mark.parametrize("learns", range(5))
def test_gradients_of_some_inputs_alone(learns):
    q, k, v = maps((5, 6))
    inputs = [q, k, v, *tables("whole", [3, 3], 1, 4)]
    want = native(*inputs[:3], inputs[3:], kernel_size=3)[1 + learns]
    inputs[learns] = inputs[learns].requires_grad_()
    out = foveal.local_attention(*inputs[:3], relative=inputs[3:], kernel_size=3, backend="native")
    assert same_bits(torch.autograd.grad(out.sum(), inputs[learns])[0], want)


def test_logits_of_thousands():
    q, k, v = maps((8, 9))
    upstream = torch.randn(v.shape)
    relative = tables("whole", [5, 5], 2, 4)
    got = native(q * 300, k * 10, v, relative, kernel_size=5, upstream=upstream)
    want = definition(q * 300, k * 10, v, relative, kernel_size=5, upstream=upstream)
    assert_close(got[0].double(), want[0], rtol=0, atol=2e-3)
    for grad in got[1:]:
        assert grad.isfinite().all()
    # The largest logit takes all: moving every logit by thousands changes nothing.
    one = torch.ones(1, 1, 1, 4, 4)
    assert_close(foveal.local_attention(one * 3e4, one, one, kernel_size=1, backend="native"), one)


def nans(x, at):
    x = x.clone()
    x[at] = float("nan")
    return x


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("layout", ["channels first", "channels last"])
@pytest.mark.parametrize("column", [0, 3, 6])
def test_a_nan_spreads_to_what_depends_on_it_and_no_further(which, layout, column):
    inputs = maps((7, 7), 5, layout=layout)
    inputs[which] = nans(inputs[which], (1, 0, 2, 3, column))
    got, want = native(*inputs, kernel_size=3), definition(*inputs, kernel_size=3)
    for name, a, b in zip(("out", "q", "k", "v"), got, want, strict=True):
        assert torch.equal(a.isnan(), b.isnan()), name


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, -1])
def test_every_kind_of_nan_is_kept(bits):
    inputs = maps((3, 4))
    poison = torch.tensor([bits], dtype=torch.int32).view(torch.float32)
    for which in range(3):
        poisoned = list(inputs)
        poisoned[which] = poison.expand(inputs[0].shape)
        assert native(*poisoned, kernel_size=3)[0].isnan().all()


def test_an_infinite_value_stays_with_the_queries_that_see_it():
    q, k, v = maps((7, 7), 5)
    v[1, 0, 2, 3, 6] = math.inf
    got, want = native(q, k, v, kernel_size=3), definition(q, k, v, kernel_size=3)
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a.isfinite(), b.isfinite())


@pytest.mark.parametrize("layout", ["channels first", "channels last"])
@pytest.mark.parametrize("shape", [(3, 4, 8, 7, 7), (1, 2, 4, 40, 9), (2, 1, 3, 5, 33), (1, 8, 4, 12, 12)], ids=str)
def test_threads_and_runs_give_the_same_bits(shape, layout):
    batch, heads, depth, *space = shape
    q, k, v = maps(space, batch, heads, depth, layout=layout)
    relative, upstream = tables("whole", [7, 5], 1, depth), torch.randn(v.shape)
    mask = torch.rand(batch, *space) > 0.2
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 1, 2, 3, 5):
            torch.set_num_threads(threads)
            results.append(native(q, k, v, relative, kernel_size=[7, 5], mask=mask, dilation=[1, 2], upstream=upstream))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            assert same_bits(a, b)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("reading", [None, "split", "whole"])
def test_bfloat16_errs_at_most_twice_as_far_as_the_definition_in_bfloat16(layout, reading):
    q, k, v = maps((9, 11), 3, 2, 6, 5, layout, torch.bfloat16)
    relative = [x.bfloat16() for x in tables(reading, [5, 3], 2, 6)]
    options = {"kernel_size": [5, 3], "scale": 0.4, "upstream": torch.randn(v.shape).bfloat16()}
    exact = definition(q, k, v, relative, **options)
    plain = definition(q, k, v, relative, dtype=torch.bfloat16, **options)
    for got, same_type, want in zip(native(q, k, v, relative, **options), plain, exact, strict=True):
        assert got.dtype == torch.bfloat16
        assert (got.double() - want).abs().max() <= 2 * (same_type.double() - want).abs().max()
        assert (got.double() - want).norm() <= 2 * (same_type.double() - want).norm()


def test_an_empty_batch():
    out, *grads = native(*maps((5, 6), 0), tables("split", [3, 3], 2, 4), kernel_size=3)
    assert out.shape == (0, 2, 4, 5, 6)
    assert [tuple(x.shape) for x in grads] == [(0, 2, 4, 5, 6)] * 3 + [(2, 3, 2)] * 2
    assert not grads[3].any()
    assert not grads[4].any()


def test_results_keep_the_memory_format_of_the_queries():
    for layout, last in (("channels first", False), ("channels last", True)):
        out, to_q, to_k, to_v = native(*maps((5, 6), layout=layout), kernel_size=3)
        for x in (out, to_q, to_k, to_v):
            assert (x.stride(2) == 1) == last


def test_what_the_kernel_does_not_take_is_said():
    q, k, v = maps((5, 6))
    calls = [
        ([x.double() for x in (q, k, v)], 3, "it computes float32 and bfloat16, the maps are float64"),
        ((q, k, v), 17, "its windows go up to 15, got 17"),
        ([x.unsqueeze(3) for x in (q, k, v)], 3, "it has no kernel for three space axes"),
    ]
    for inputs, window, why in calls:
        with pytest.raises(foveal.BackendError, match=f"backend 'native' cannot run this call: {why}"):
            foveal.local_attention(*inputs, kernel_size=window, backend="native")


def test_fresh_memory_of_the_kernels_is_nan_in_these_tests():
    """Otherwise no test here would see an element that is left unwritten."""
    inputs = [x.requires_grad_() for x in maps((5, 6))]
    with torch.profiler.profile() as trace:
        foveal.local_attention(*inputs, kernel_size=3, backend="native").sum().backward()
    names = [event.name for event in trace.events()]
    made = names.count("aten::new_empty")
    assert made >= 8  # results, log-sum-exps, scratch, gradients
    assert names.count("aten::fill_") >= made
