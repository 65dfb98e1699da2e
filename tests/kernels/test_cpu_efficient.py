"""Native efficient attention against the definition in float64."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import foveal
from foveal.errors import BackendError
from foveal.functional.efficient import BACKENDS
from foveal.kernels.cpu.load import WHY_NOT

pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
TESTS = Path(__file__).parent.parent
LAYOUTS = ["first", "last", "apart"]
# Batch, heads, depths of keys and values, space, space of the keys.
SIZES = [
    (1, 1, 1, 1, (1,), (1,)),
    (2, 1, 3, 5, (7,), (1,)),
    (2, 2, 17, 33, (5, 13), (9, 15)),
    (1, 3, 16, 4, (3, 4, 2), (3, 4, 2)),
    (2, 1, 40, 70, (31, 37), (29, 41)),
    (0, 2, 3, 4, (5, 3), (5, 3)),
]


def laid_out(shape, layout, dtype=torch.float32, factor=1.0):
    """A map of random numbers whose channels come first, last, or with gaps between everything."""
    b, h, d, *space = shape
    if layout == "last":
        return (torch.randn(b, *space, h, d) * factor).to(dtype).movedim((-2, -1), (1, 2))
    if layout == "apart":
        return (torch.randn(b, h, 2 * d, *space[:-1], 2 * space[-1]) * factor).to(dtype)[:, :, ::2, ..., ::2]
    return (torch.randn(shape) * factor).to(dtype)


def both(call, tensors, **options):
    """Results and gradients, natively and from the definition in float64."""
    told = []
    for backend, dtype in (("native", None), ("reference", torch.float64)):
        leaves = [(t if dtype is None else t.to(dtype)).detach().requires_grad_() for t in tensors]
        out = call(*leaves, backend=backend, **options)
        slope = torch.linspace(-1, 1, max(out.numel(), 1))[: out.numel()].reshape(out.shape).to(out.dtype)
        told.append([out, *torch.autograd.grad(out, leaves, slope)])
    return told


@pytest.mark.parametrize("normalization", ["softmax", "scaling"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_results_and_gradients_are_those_of_the_definition(size, layout, normalization, masked):
    b, h, d, e, space, key_space = size
    tensors = [laid_out((b, h, c, *s), layout) for c, s in ((d, space), (d, key_space), (e, key_space))]
    mask = torch.rand(b, *key_space) > 0.4 if masked else None
    got, want = both(foveal.efficient_attention, tensors, normalization=normalization, mask=mask)
    for a, r in zip(got, want, strict=True):
        assert_close(a.double(), r, atol=3e-6, rtol=3e-5)


def test_a_map_without_any_key_gives_zeros():
    q, k, v = (torch.randn(2, 2, 3, 5) for _ in range(3))
    for normalization in ("softmax", "scaling"):
        none = torch.zeros(2, 5, dtype=torch.bool)
        out = foveal.efficient_attention(q, k, v, normalization=normalization, mask=none, backend="native")
        assert not out.any()


def test_large_scores_neither_overflow_nor_lose_their_order():
    q, k = (1e4 * torch.randn(1, 2, 5, 300) for _ in range(2))
    v = torch.randn(1, 2, 6, 300)
    got, want = both(foveal.efficient_attention, [q, k, v])
    assert_near(got, want, 1e-6)


def test_rising_scores_rescale_what_was_summed():
    k = torch.arange(1500.0).mul(0.1).expand(1, 1, 3, -1).contiguous()
    q, v = torch.randn(1, 1, 3, 10), torch.randn(1, 1, 4, 1500)
    got, want = both(foveal.efficient_attention, [q, k, v])
    for a, r in zip(got, want, strict=True):
        assert_close(a.double(), r, atol=3e-6, rtol=1e-4)


@pytest.mark.parametrize("which", range(3))
def test_nan_spreads_where_the_definition_spreads_it(which):
    tensors = [torch.randn(1, 1, 3, 200) for _ in range(3)]
    tensors[which][0, 0, 1, 77] = float("nan")
    native, wanted = (foveal.efficient_attention(*tensors, backend=name) for name in ("native", "context"))
    assert torch.equal(native.isnan(), wanted.isnan())
    assert native.isnan().any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bfloat16_errs_at_most_twice_as_much_as_the_definition_in_bfloat16(layout):
    tensors = [laid_out((2, 2, c, 19, 23), layout, torch.bfloat16) for c in (24, 24, 40)]
    got, want = both(foveal.efficient_attention, tensors)
    leaves = [t.detach().requires_grad_() for t in tensors]
    out = foveal.efficient_attention(*leaves, backend="reference")
    slope = torch.linspace(-1, 1, out.numel()).reshape(out.shape).to(out.dtype)
    for mine, theirs, exact in zip(got, [out, *torch.autograd.grad(out, leaves, slope)], want, strict=True):
        assert mine.dtype == torch.bfloat16
        budget = 2 * (theirs.double() - exact).square().mean()
        assert (mine.double() - exact).square().mean() <= budget


def test_results_keep_the_layout_of_the_queries():
    q, k, v = (laid_out((2, 2, c, 6, 7), "last") for c in (3, 3, 5))
    out = foveal.efficient_attention(q, k, v, backend="native")
    assert out.flatten(1, 2).is_contiguous(memory_format=torch.channels_last)


def test_other_types_are_left_to_others_and_it_is_said_why():
    q = torch.randn(1, 1, 2, 5, dtype=torch.float16)
    with pytest.raises(BackendError, match="it computes float32 and bfloat16, the maps are float16"):
        foveal.efficient_attention(q, q, q, backend="native")
    with torch.autograd.forward_ad.dual_level():
        x = torch.autograd.forward_ad.make_dual(q.float(), q.float())
        with pytest.raises(NotImplementedError, match="forward-mode"):
            foveal.efficient_attention(x, x, x, backend="native")
    wide = [torch.randn(1, 1, 2, 50)] * 3
    assert BACKENDS.cheapest(*wide) == "native"


@pytest.mark.parametrize("form", ["operation", "layer", "external"])
def test_second_derivatives_raise_instead_of_missing(form):
    x, memory = torch.randn(1, 16, 30, 30, requires_grad=True), torch.randn(4, 16)
    maps = x[:, None]
    out = {
        "operation": lambda: foveal.efficient_attention(maps, maps, maps),
        "layer": lambda: foveal.EfficientAttention(16, key_channels=4)(x),
        "external": lambda: foveal.external_attention(maps, memory, memory),
    }[form]()
    (gradient,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives are only available"):
        gradient.sum().backward()


def layer_and_map(space=(40, 39), batch=2, **options):
    layer = foveal.EfficientAttention(48, **{"key_channels": 20, "value_channels": 40, **options})
    return layer, torch.randn(batch, 48, *space)


def assert_near(got, want, share):
    """Near, measured by the largest of all: some gradients are zero but for rounding."""
    largest = max(r.abs().max().item() for r in want)
    for a, r in zip(got, want, strict=True):
        assert_close(a.double(), r, atol=share * largest, rtol=10 * share)


def gradients(layer, x):
    x = x.detach().requires_grad_()
    out = layer(x)
    slope = torch.linspace(-1, 1, max(out.numel(), 1))[: out.numel()].reshape(out.shape).to(out.dtype)
    return [out, *torch.autograd.grad(out, [x, *layer.parameters()], slope)]


@pytest.mark.parametrize("options", [{}, {"heads": 4}, {"heads": 2, "bias": False}, {"residual": False}], ids=str)
@pytest.mark.parametrize("space", [(40, 39), (1500,), (3, 20, 19)], ids=str)
@pytest.mark.parametrize("last", [False, True])
def test_the_layer_trains_like_itself_in_float64(options, space, last):
    layer, x = layer_and_map(space, **options)
    if last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    got, want = gradients(layer, x), gradients(copy.deepcopy(layer).double(), x.double())
    assert_near(got, want, 1e-5)
    if last:
        assert got[0].stride() == got[1].stride() == x.stride()


def test_an_empty_batch_gives_empty_maps_and_gradients_of_zero():
    layer, x = layer_and_map(batch=0)
    out, *grads = gradients(layer, x)
    assert out.shape == x.shape
    assert not any(g.any() for g in grads)


@pytest.mark.parametrize("options", [{}, {"heads": 2, "value_channels": 48}], ids=str)
def test_any_number_of_threads_gives_the_same_bits(options):
    layer, x = layer_and_map((61, 67), **options)
    before = torch.get_num_threads()
    try:
        told = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            told.append(gradients(layer, x)[:6])  # what the kernels compute, before torch's small products
    finally:
        torch.set_num_threads(before)
    for other in told[1:]:
        assert all(torch.equal(a, b) for a, b in zip(told[0], other, strict=True))


@pytest.mark.parametrize("instructions", ["portable", "avx2", "avx512"])
def test_every_instruction_set_passes(instructions):
    if os.environ.get("FOVEAL_CPU_ISA"):
        pytest.skip("runs inside itself")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(Path(__file__))]
    command += [str(Path(__file__).with_name("test_cpu_external.py")), "-k", "not 1500"]
    environment = {**os.environ, "FOVEAL_CPU_ISA": instructions, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-3000:]
