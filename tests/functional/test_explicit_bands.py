"""Decays evaluated from what bands leave are the decays, whatever the radius, and the points suffice."""

import pytest
import torch
from torch.testing import assert_close

from foveal.functional import explicit_attention
from foveal.functional.explicit_bands import _gaussian, _interpolation, _points, row_decay

RADII = [1.0, 0.75, 0.3, 0.1, 0.03, 0.01]


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_interpolation_between_the_points_errs_by_rounding_alone(radius, dtype):
    points = _points(8192, torch.tensor(radius, dtype=dtype))
    places, queries = (torch.linspace(0, 8191 / 8192, n, dtype=torch.float64) for n in (2003, 101))
    wanted = _gaussian(queries, places, torch.tensor(radius))[0]
    error = (_gaussian(queries, points, torch.tensor(radius))[0] @ _interpolation(places, points).mT - wanted).abs()
    assert error.max() < (1e-7 if dtype == torch.float32 else 1e-11)


def test_a_narrower_gaussian_needs_more_points_and_a_very_narrow_one_has_a_reach():
    counts = [row_decay("gaussian", (8192, 4000), torch.tensor(r)).left_shape for r in RADII]
    assert counts == sorted(counts) and counts[0] == (12, 12)
    narrow = row_decay("gaussian", (8192, 4000), torch.tensor(0.003))
    assert narrow.points is None and 150 < narrow.reach < 250


@pytest.mark.parametrize("radius", [0.75, 0.05, torch.tensor([0.75, 0.05])], ids=str)
@pytest.mark.parametrize("cuts", [[1], [5], [40, 1, 60, 19]])
def test_a_gaussian_from_its_points_is_the_gaussian_with_its_gradients(radius, cuts):
    v = torch.randn(2, 2, 3, sum(cuts), 30, dtype=torch.float64, requires_grad=True)
    radius = torch.as_tensor(radius).double().requires_grad_()
    decay = row_decay("gaussian", v.shape[3:], radius)
    starts = [sum(cuts[:i]) for i in range(len(cuts))]
    left = sum(decay.left(b, s) for b, s in zip(v.split(cuts, 3), starts, strict=True))
    bands = [decay.from_points(s, n, left) / decay.weights(s, n, 0.0) for s, n in zip(starts, cuts, strict=True)]
    got, wanted = torch.cat(bands, 3), explicit_attention(v, decay="gaussian", radius=radius, offset=0.0)
    assert_close(got, wanted, rtol=1e-9, atol=1e-11)
    weights = torch.randn_like(wanted)
    grads = [torch.autograd.grad((out * weights).sum(), [v, radius], retain_graph=True) for out in (got, wanted)]
    for a, b in zip(*grads, strict=True):
        assert_close(a, b, rtol=1e-8, atol=1e-9)
