"""Explicit attention: the decays at known numbers, limits of the radius, the choice of evaluation, errors."""

import math

import pytest
import torch
from torch.testing import assert_close

from foveal import BackendError, OptionError, explicit_attention
from foveal.functional.decays import kernel
from foveal.functional.explicit import BACKENDS, attention_row


@pytest.mark.parametrize(
    ("decay", "wanted"),
    [
        ("uniform", 1.0),
        ("linear", 1 - 5 / 10),
        ("cosine", 0.5 * (1 + math.cos(math.pi * 5 / 10))),
        ("gaussian", math.exp(-((3 / 6) ** 2 + (4 / 8) ** 2) / (2 * (0.5**2 + 1e-6)))),
        ("euclidean", math.exp(-math.sqrt((3 / 6) ** 2 + (4 / 8) ** 2) / (0.5 + 1e-6))),
        ("manhattan", math.exp(-(3 / 6 + 4 / 8) / (0.5 + 1e-6))),
    ],
)
def test_decays_are_the_papers_at_three_rows_and_four_columns_on_a_6_by_8_map(decay, wanted):
    radius = torch.tensor(0.5).double() if decay in ("gaussian", "euclidean", "manhattan") else None
    values = kernel(decay, (6, 8), radius, torch.zeros(()).double())
    assert values[0, 5 + 3, 7 + 4].item() == pytest.approx(wanted, rel=1e-12)
    assert values[0, 5, 7].item() == 1
    assert ((values > 0) & (values <= 1)).all()


@pytest.mark.parametrize("decay", ["gaussian", "euclidean", "manhattan"])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_a_large_radius_is_uniform_attention(decay, offset):
    v = torch.randn(2, 1, 3, 6, 7).double()
    far = explicit_attention(v, decay=decay, radius=torch.tensor(1e7).double(), offset=offset)
    assert_close(far, explicit_attention(v, decay="uniform"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("decay", ["gaussian", "euclidean", "manhattan"])
def test_a_radius_of_zero_without_offset_gives_the_values_back(decay):
    v = torch.randn(2, 1, 3, 6, 7)
    assert_close(explicit_attention(v, decay=decay, radius=torch.tensor(0.0), offset=0.0), v)


@pytest.mark.parametrize("decay", ["gaussian", "euclidean", "manhattan"])
@pytest.mark.parametrize("start", [0.0, 1e-8, -0.3, 1e8])
@pytest.mark.parametrize("backend", ["separable", "fft", "dense"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_any_radius_keeps_result_and_gradient_finite(decay, start, backend, dtype):
    if backend == "separable" and decay == "euclidean":
        with pytest.raises(BackendError, match="decay 'euclidean' is no product over the axes"):
            explicit_attention(torch.randn(1, 1, 1, 4), decay=decay, radius=torch.tensor(1.0), backend=backend)
        return
    v = torch.randn(2, 1, 3, 9, 8, dtype=dtype, requires_grad=True)
    radius = torch.tensor(start, requires_grad=True)
    for offset in (0.0, 1.0):
        out = explicit_attention(v, decay=decay, radius=radius, offset=offset, backend=backend)
        gradients = torch.autograd.grad(out.float().square().sum(), [v, radius])
        assert out.isfinite().all()
        assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("decay", ["linear", "cosine", "euclidean", "gaussian"])
def test_transforms_are_exact_on_large_maps(decay):
    v = torch.randn(1, 1, 2, 37, 53, dtype=torch.float64)
    radius = torch.tensor(0.4).double() if decay in ("gaussian", "euclidean") else None
    wanted = explicit_attention(v, decay=decay, radius=radius, backend="reference")
    assert_close(explicit_attention(v, decay=decay, radius=radius, backend="fft"), wanted, rtol=0, atol=1e-13)
    single = explicit_attention(v.float(), decay=decay, radius=radius, backend="fft")
    assert_close(single.double(), wanted, rtol=0, atol=1e-6)


def test_the_cheapest_evaluation_is_chosen_by_counting():
    def chosen(space, channels, decay):
        v = torch.empty(1, 1, channels, *space, device="meta")
        return BACKENDS.cheapest(v, decay=decay, offset=1.0, mask=None)

    assert chosen((56, 56), 24, "uniform") == "mean"
    assert chosen((56, 56), 24, "gaussian") == "separable"
    assert chosen((7, 7), 56, "linear") == "dense"
    assert chosen((128, 128), 24, "linear") == "fft"


def test_transforms_are_refused_where_rounding_would_drown_the_weights():
    v, mask = torch.randn(1, 1, 1, 40), torch.zeros(1, 40, dtype=torch.bool)
    mask[0, 0] = True
    with pytest.raises(BackendError, match="with a mask and no offset"):
        explicit_attention(v, decay="linear", offset=0.0, mask=mask, backend="fft")
    out = explicit_attention(v, decay="linear", offset=0.0, mask=mask)
    assert_close(out, v[..., :1].expand(v.shape))


def test_the_closed_form_row_is_the_row_of_the_operation():
    space, radius = (4, 5), torch.tensor([0.3, 0.9]).double()
    basis = torch.eye(20, dtype=torch.float64).reshape(20, 1, 1, *space).expand(-1, 2, -1, -1, -1)
    matrix = explicit_attention(basis.contiguous(), decay="gaussian", radius=radius)
    row = attention_row("gaussian", space, radius, 1.0, (2, 3), radius)
    assert_close(matrix[:, :, 0, 2, 3].mT.reshape(2, *space), row)


def test_errors_say_what_to_do():
    v = torch.randn(1, 2, 3, 4, 5)
    with pytest.raises(OptionError, match="decay must be one of uniform, linear, cosine, gaussian, .* got 'gauss'"):
        explicit_attention(v, decay="gauss")
    with pytest.raises(OptionError, match="decay 'gaussian' needs a radius, got None. The paper starts from 0.75"):
        explicit_attention(v, decay="gaussian")
    with pytest.raises(OptionError, match="decay 'linear' has no radius. Leave it None"):
        explicit_attention(v, decay="linear", radius=torch.tensor(1.0))
    with pytest.raises(OptionError, match=r"radius must have shape \(\) or \(2,\), got \(3,\)"):
        explicit_attention(v, decay="gaussian", radius=torch.ones(3))
