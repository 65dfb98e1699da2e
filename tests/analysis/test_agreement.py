"""Rounding agrees, anything else does not."""

import pytest
import torch

from foveal.analysis.agreement import TOLERANCE, errors
from foveal.errors import ShapeError


def test_errors_are_relative_to_the_largest_entry():
    x = torch.tensor([1.0, 10.0])
    assert errors(x + torch.tensor([0.0, 0.1]), x) == [pytest.approx(0.01, rel=1e-3)]
    assert max(errors([x, 1e-9 * x], [x, -1e-9 * x])) < TOLERANCE  # zero but for rounding
    assert errors(torch.zeros(3), torch.zeros(3)) == [0.0]


def test_nan_is_no_rounding():
    x = torch.randn(3)
    assert not errors(x * torch.nan, x)[0] < TOLERANCE


def test_more_results_than_wanted_are_refused():
    with pytest.raises(ShapeError, match=r"^agreement: 2 results against 1"):
        errors([torch.ones(1)] * 2, [torch.ones(1)])
