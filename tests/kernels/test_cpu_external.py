"""Native external attention against the definition in float64."""

import copy

import pytest
import torch
from torch.testing import assert_close

import foveal
from foveal.functional.external import BACKENDS
from foveal.kernels.cpu.load import WHY_NOT
from kernels.test_cpu_efficient import LAYOUTS, assert_near, both, gradients, laid_out

pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
# Batch, heads, depths of the memories, slots, space.
SIZES = [
    (1, 1, 1, 1, 1, (1,)),
    (2, 1, 3, 5, 7, (6,)),
    (2, 3, 17, 20, 33, (5, 13)),
    (1, 2, 16, 4, 64, (3, 4, 2)),
    (2, 1, 40, 70, 19, (31, 37)),
]


def attend(x, key, value, *bias, **options):
    return foveal.external_attention(x, key, value, key_bias=bias[0] if bias else None, **options)


@pytest.mark.parametrize("normalization", ["double", "softmax"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("by_head", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_results_and_gradients_are_those_of_the_definition(size, layout, normalization, by_head, masked):
    b, h, d, e, slots, space = size
    heads = (h,) if by_head else ()
    small = [torch.randn(*heads, slots, d) / d**0.5, torch.randn(*heads, slots, e), torch.randn(*heads, slots)]
    mask = torch.rand(b, *space) > 0.4 if masked else None
    tensors = [laid_out((b, h, d, *space), layout), *(small if masked else small[:2])]
    got, want = both(attend, tensors, normalization=normalization, mask=mask)
    assert_near(got, want, 1e-5)


def test_a_map_without_any_position_gives_zeros():
    x, memory = torch.randn(2, 2, 3, 5), torch.randn(4, 3)
    for normalization in ("double", "softmax"):
        none = torch.zeros(2, 5, dtype=torch.bool)
        out = foveal.external_attention(x, memory, memory, normalization=normalization, mask=none, backend="native")
        assert not out.any()


@pytest.mark.parametrize("normalization", ["double", "softmax"])
def test_large_scores_do_not_overflow(normalization):
    x, memory = 1e4 * torch.randn(1, 1, 3, 200), torch.eye(3)
    got, want = both(attend, [x, memory, torch.randn(3, 4)], normalization=normalization)
    assert_close(got[0].double(), want[0], atol=1e-6, rtol=1e-4)
    assert all(g.isfinite().all() for g in got)


def test_positions_that_no_slot_sees_stay_zero():
    x = torch.zeros(1, 1, 1, 100)
    x[..., 0] = 500.0
    memory = torch.ones(2, 1)
    native, wanted = (foveal.external_attention(x, memory, memory, backend=name) for name in ("native", "reference"))
    assert_close(native, wanted)
    assert not native[..., 1:].any()


@pytest.mark.parametrize("normalization", ["double", "softmax"])
def test_nan_spreads_where_the_definition_spreads_it(normalization):
    x, memory = torch.randn(1, 1, 3, 200), torch.randn(4, 3)
    x[0, 0, 1, 77] = float("nan")
    told = [
        foveal.external_attention(x, memory, memory, normalization=normalization, backend=name).isnan()
        for name in ("native", "slots")
    ]
    assert torch.equal(*told)
    assert told[0].any()


@pytest.mark.parametrize("normalization", ["double", "softmax"])
def test_bfloat16_errs_at_most_twice_as_much_as_the_definition_in_bfloat16(normalization):
    tensors = [laid_out((2, 2, 24, 19, 23), "last", torch.bfloat16), *torch.randn(2, 20, 24).bfloat16()]
    got, want = both(attend, tensors, normalization=normalization)
    leaves = [t.detach().requires_grad_() for t in tensors]
    out = attend(*leaves, normalization=normalization, backend="reference")
    slope = torch.linspace(-1, 1, out.numel()).reshape(out.shape).to(out.dtype)
    for mine, theirs, exact in zip(got, [out, *torch.autograd.grad(out, leaves, slope)], want, strict=True):
        assert mine.dtype == torch.bfloat16
        assert (mine.double() - exact).square().mean() <= 2 * (theirs.double() - exact).square().mean()


LAYERS = {
    "unit": lambda c=48: foveal.ExternalAttention(c, slots=20),
    "softmax": lambda c=48: foveal.ExternalAttention(c, slots=20, normalization="softmax", norm=False),
    "tied": lambda c=48: foveal.ExternalAttention(c, slots=20, memories="tied", bias=False),
    "heads": lambda c=48: foveal.MultiHeadExternalAttention(c, heads=3, slots=9, residual=True),
    "heads, softmax": lambda c=48: foveal.MultiHeadExternalAttention(c, heads=2, slots=9, normalization="softmax"),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("last", [False, True])
def test_the_layer_trains_like_itself_in_float64(name, last):
    layer, x = LAYERS[name](), torch.randn(2, 48, 23, 29)
    if last:
        x = x.to(memory_format=torch.channels_last)
    got, want = gradients(layer, x), gradients(copy.deepcopy(layer).double(), x.double())
    assert_near(got, want, 1e-5)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("channels", [48, 144])
@pytest.mark.parametrize("last", [False, True])
def test_the_layer_without_gradients_gives_the_same(name, channels, last):
    layer, x = LAYERS[name](channels), torch.randn(2, channels, 23, 29)
    if last:
        x = x.to(memory_format=torch.channels_last)
    layer(x)  # running statistics
    layer.eval()
    with torch.no_grad():
        got, want = layer(x), copy.deepcopy(layer).double()(x.double())
        assert got.stride() == x.stride()
    assert_near([got], [want], 1e-5)
    assert_near([layer(x)], [want], 1e-5)


@pytest.mark.parametrize("normalization", ["double", "softmax"])
def test_any_number_of_threads_gives_the_same_bits(normalization):
    tensors = [torch.randn(2, 2, 24, 61, 67), torch.randn(20, 24), torch.randn(20, 40)]
    before = torch.get_num_threads()
    try:
        told = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaves = [t.detach().requires_grad_() for t in tensors]
            out = attend(*leaves, normalization=normalization, backend="native")
            told.append([out, *torch.autograd.grad(out, leaves, torch.ones_like(out))])
    finally:
        torch.set_num_threads(before)
    for other in told[1:]:
        assert all(torch.equal(a, b) for a, b in zip(told[0], other, strict=True))


def test_the_native_backend_is_the_first_choice():
    x = torch.randn(1, 1, 3, 50)
    memory = torch.randn(4, 3)
    assert BACKENDS.cheapest(x, memory, memory) == "native"
    assert "float64" in BACKENDS.explain(x.double(), memory.double(), memory.double())["native"]


@pytest.mark.parametrize("normalization", ["double", "softmax"])
def test_an_empty_batch_gives_gradients_of_zero(normalization):
    leaves = [torch.randn(s, requires_grad=True) for s in ((0, 2, 3, 5, 4), (6, 3), (6, 7))]
    out = attend(*leaves, normalization=normalization, backend="native")
    assert out.shape == (0, 2, 7, 5, 4)
    assert not any(g.any() for g in torch.autograd.grad(out.sum(), leaves))
