"""Explicit attention's CPU kernel against the definition in float64: values, gradients, any map, any radius."""

import pytest
import torch
from torch.testing import assert_close

from foveal import BackendError, explicit_attention
from foveal.kernels.cpu import WHY_NOT

pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
SPACES = [(1,), (7,), (33,), (1, 1), (5, 7), (2, 40), (40, 17), (28, 28), (70, 9), (6, 66)]
by_decay = pytest.mark.parametrize("decay", ["gaussian", "manhattan"])


def laid_out(v, layout):
    """The same values with other strides."""
    if layout == "channels last":
        return v.movedim((1, 2), (-2, -1)).contiguous().movedim((-2, -1), (1, 2))
    if layout == "strided":
        return torch.stack([v, v + 1], -1)[..., 0]
    return v.contiguous()


def run(v, radius, upstream, *, backend, layout="channels first", **options):
    """Result and gradients of values and radius; poisoned memory is the suite's."""
    v = laid_out(v, layout).detach().requires_grad_()
    radius = radius.detach().clone().requires_grad_()
    out = explicit_attention(v, radius=radius, backend=backend, **options)
    return [out.detach(), *torch.autograd.grad(out, [v, radius], laid_out(upstream, layout).to(out.dtype))]


def errors(came, wanted):
    return [
        float((a.detach().double() - b).abs().max() / b.abs().max().clamp(min=1e-9))
        for a, b in zip(came, wanted, strict=True)
    ]


@by_decay
@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("layout", ["channels first", "channels last", "strided"])
def test_values_and_gradients_are_the_definitions(decay, space, layout):
    v, upstream = (torch.randn(2, 2, 9, *space, dtype=torch.float64) for _ in range(2))
    for radius, offset in [(torch.tensor(0.75), 1.0), (torch.tensor([0.4, -0.15]), 0.0)]:
        options = {"decay": decay, "offset": offset}
        wanted = run(v, radius.double(), upstream, backend="reference", **options)
        came = run(v.float(), radius, upstream, backend="native", layout=layout, **options)
        to_values = errors(came[:2], wanted[:2])
        assert max(to_values) < 1e-6
        # A sum over all positions that largely cancels: its rounding is that of its terms.
        terms = float(wanted[0].abs().mean() * upstream.abs().sum()) + 1
        assert_close(came[2].double(), wanted[2], rtol=0, atol=1e-6 * terms)


@by_decay
@pytest.mark.parametrize("radius", [0.0, 1e-8, 1e-3, 0.05, 0.1, 0.2, 0.5, 2.0, 1e4, 1e8])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_any_radius_is_exact(decay, radius, offset):
    v, upstream = (torch.randn(1, 1, 3, 48, 30, dtype=torch.float64) for _ in range(2))
    for sign in (1, -1):
        options = {"decay": decay, "offset": offset}
        wanted = run(v, torch.tensor(sign * radius).double(), upstream, backend="reference", **options)
        came = run(v.float(), torch.tensor(sign * radius), upstream, backend="native", **options)
        assert max(errors(came[:2], wanted[:2])) < 2e-6
        assert came[2].isfinite()
        assert abs(came[2].double() - wanted[2]) <= 1e-5 * max(1.0, abs(wanted[2]))


@by_decay
@pytest.mark.parametrize("channels", [1, 15, 16, 17, 35])
@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("layout", ["channels first", "channels last"])
def test_any_batch_and_number_of_channels(decay, channels, batch, layout):
    v, upstream = (torch.randn(batch, 2, channels, 6, 19, dtype=torch.float64) for _ in range(2))
    radius = torch.tensor([0.3, 0.6])
    came = run(v.float(), radius, upstream, backend="native", layout=layout, decay=decay)
    if batch == 0:
        assert came[0].shape == v.shape and came[1].shape == v.shape
        assert (came[2] == 0).all()
        return
    wanted = run(v, radius.double(), upstream, backend="reference", decay=decay)
    assert max(errors(came, wanted)) < 1e-5
    assert came[0].stride(2) == (1 if layout == "channels last" and channels > 1 else came[0].stride(2))


@by_decay
@pytest.mark.parametrize("layout", ["channels first", "channels last"])
def test_bfloat16_errs_at_most_twice_as_far_as_the_definition(decay, layout):
    v, upstream = (torch.randn(2, 1, 20, 13, 24).bfloat16() for _ in range(2))
    radius, options = torch.tensor(0.4), {"decay": decay}
    wanted = run(v.double(), radius.double(), upstream.double(), backend="reference", **options)
    came = run(v, radius, upstream, backend="native", layout=layout, **options)
    assert came[0].dtype == torch.bfloat16 and came[1].dtype == torch.bfloat16 and came[2].dtype == torch.float32
    theirs = run(v, radius, upstream, backend="reference", **options)
    for ours, budget in zip(errors(came, wanted), errors(theirs, wanted), strict=True):
        assert ours <= 2 * budget + 1e-6


@by_decay
def test_any_number_of_threads_gives_the_same_bits(decay):
    v, upstream = torch.randn(3, 2, 20, 29, 30), torch.randn(3, 2, 20, 29, 30)
    radius = torch.tensor([0.3, 0.6])
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(run(v, radius, upstream, backend="native", decay=decay))
    finally:
        torch.set_num_threads(1)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@by_decay
def test_only_the_gradients_that_are_asked_for_are_made(decay):
    v, radius = torch.randn(1, 1, 2, 5, 6), torch.tensor(0.5)
    for leaf in (v, radius):
        leaf.requires_grad_()
        out = explicit_attention(v, decay=decay, radius=radius, backend="native")
        (came,) = torch.autograd.grad(out.square().sum(), [leaf])
        wanted = explicit_attention(v, decay=decay, radius=radius, backend="reference")
        assert_close(came, torch.autograd.grad(wanted.square().sum(), [leaf])[0], rtol=1e-4, atol=1e-5)
        leaf.requires_grad_(False)


def test_constant_maps_stay_constant_and_move_no_radius():
    v = torch.full((1, 1, 3, 31, 44), 2.5)
    for decay in ("gaussian", "manhattan"):
        out, _, to_radius = run(v, torch.tensor(0.3), torch.randn_like(v), backend="native", decay=decay)
        assert_close(out, v, rtol=2e-6, atol=0)
        assert abs(to_radius) < 1e-2


def test_it_is_taken_where_it_fits_and_says_why_not_elsewhere():
    from foveal.functional.explicit import BACKENDS

    def chosen(v, decay="gaussian", mask=None):
        return BACKENDS.cheapest(v, decay=decay, offset=1.0, mask=mask)

    v = torch.randn(1, 1, 4, 9, 9)
    assert chosen(v) == "native" and chosen(v.bfloat16(), "manhattan") == "native"
    assert chosen(v.double()) == "separable"
    radius = torch.tensor(0.5)
    for reason, changed, options in [
        ("it computes float32 and bfloat16, the map is float64", v.double(), {}),
        ("it has no kernel for three space axes", v[..., None], {}),
        ("it takes no mask", v, {"mask": torch.ones(1, 9, 9, dtype=torch.bool)}),
    ]:
        with pytest.raises(BackendError, match=reason):
            explicit_attention(changed, decay="gaussian", radius=radius, backend="native", **options)
    with pytest.raises(BackendError, match="decay 'linear' is no product over the axes"):
        explicit_attention(v, decay="linear", backend="native")


@pytest.mark.parametrize("channels_last", [False, True])
@by_decay
def test_the_operators_pass_opcheck(decay, channels_last):
    v = laid_out(torch.randn(2, 2, 3, 5, 6), "channels last" if channels_last else "channels first").requires_grad_()
    radius = torch.tensor([0.3, 0.6], requires_grad=True)
    settings = (decay == "manhattan", 1.0, channels_last)
    torch.library.opcheck(torch.ops.foveal.cpu_explicit_attention.default, (v, radius, *settings))
    v, radius = v.detach(), radius.detach()
    for wanted in [(True, True), (False, True), (True, False)]:
        arguments = (v, v, radius, *settings, *wanted)
        torch.library.opcheck(torch.ops.foveal.cpu_explicit_attention_backward.default, arguments)
