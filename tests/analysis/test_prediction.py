"""Predicted time: known speeds come back out of synthetic timings, and kinds that were not measured are named."""

import pytest
import torch
from torch import nn

from foveal.analysis.operators import Operator, operators
from foveal.analysis.prediction import FAR_BYTES, Speeds, features, fit, nonnegative_least_squares

TRUE = {
    "product calls": 2e-6, "product macs": 1e-11, "product near": 1e-10,
    "elementwise calls": 1e-6, "elementwise near": 5e-11, "elementwise far": 2e-10,
}  # fmt: skip


def synthetic():
    generator = torch.Generator().manual_seed(0)

    def draw(low, high):
        return int(torch.randint(low, high, (), generator=generator))

    for _ in range(40):
        rows = [Operator("", "product", draw(10**4, 10**8), draw(10**3, 10**6), 0) for _ in range(draw(1, 4))]
        rows += [Operator("", "elementwise", 0, draw(10**3, 4 * FAR_BYTES), 0) for _ in range(draw(1, 6))]
        yield rows


def test_known_speeds_are_recovered_from_exact_timings():
    samples = [(rows, Speeds(TRUE).predict(rows) / 1e3) for rows in synthetic()]
    found = fit(samples).seconds
    assert found == pytest.approx(TRUE, rel=1e-5)


def test_noise_of_a_tenth_moves_predictions_by_less_than_a_tenth():
    noise = torch.Generator().manual_seed(1)
    rows = list(synthetic())
    factors = 1 + 0.1 * (2 * torch.rand(len(rows), generator=noise) - 1)
    true = [Speeds(TRUE).predict(row) for row in rows]
    found = fit([(row, time / 1e3 * float(f)) for row, time, f in zip(rows, true, factors, strict=True)])
    assert all(abs(found.predict(row) / time - 1) < 0.1 for row, time in zip(rows, true, strict=True))


def test_time_is_the_sum_over_operators():
    rows = [Operator("a", "product", 10**6, 1000, 0), Operator("b", "elementwise", 0, 2000, 0)]
    assert Speeds(TRUE).predict(rows) == pytest.approx(1e3 * (2e-6 + 1e-5 + 1e-7 + 1e-6 + 1e-7))


def test_large_tensors_have_a_bandwidth_of_their_own():
    assert features([Operator("", "elementwise", 0, FAR_BYTES + 1, 0)]).keys() == {
        "elementwise calls",
        "elementwise far",
    }


def test_maps_larger_than_any_measured_are_not_free():
    speeds = Speeds({"local_attention near": 1e-10})
    assert speeds.predict([Operator("", "local_attention", 0, 10**8, 0)]) == pytest.approx(10.0)


def test_a_kind_that_was_not_measured_is_named_and_taken_for_another():
    speeds = Speeds(TRUE)
    strange = Operator("", "other::multiply", 10**6, 1000, 0)
    assert speeds.unknown([strange]) == ("other::multiply",)
    assert speeds.predict([strange]) == speeds.predict([Operator("", "product", 10**6, 1000, 0)])


def test_no_speed_is_negative_where_plain_least_squares_would_make_one():
    rows = torch.tensor([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]], dtype=torch.float64)
    x = nonnegative_least_squares(rows, torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    assert x.tolist() == pytest.approx([2.0, 0.0])
    x = nonnegative_least_squares(rows, -torch.ones(3, dtype=torch.float64))
    assert x.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("layer", "shape", "kind", "macs", "whole"),
    [
        (nn.Conv2d(40, 40, 3, padding=1), (1, 40, 4, 4), "convolution", 16 * 9 * 1600, 16 * 9 * 48 * 48),
        (nn.Conv2d(3, 32, 3, padding=1), (1, 3, 4, 4), "convolution", 16 * 9 * 96, 16 * 9 * 96),
        (nn.Conv2d(8, 2, 3, padding=1), (1, 8, 4, 4), "convolution to few channels", 16 * 9 * 16, 0),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), (1, 8, 4, 4), "grouped convolution", 16 * 9 * 8, 0),
        (nn.Conv2d(8, 24, 1), (1, 8, 4, 4), "1x1 convolution", 16 * 8 * 24, 0),
        (nn.Linear(8, 24), (1, 8), "product", 8 * 24, 0),
        (nn.BatchNorm2d(8), (1, 8, 4, 4), "normalization", 0, 0),
        (nn.Softmax(1), (1, 8, 4, 4), "softmax", 0, 0),
        (nn.Sigmoid(), (1, 8), "exponential", 0, 0),
        (nn.AdaptiveAvgPool2d(1), (1, 8, 4, 4), "reduction", 0, 0),
    ],
)
def test_operators_of_one_speed_are_one_kind(layer, shape, kind, macs, whole):
    (row,) = operators(layer, shape).rows
    assert (row.kind, row.macs, row.whole) == (kind, macs, whole)


def test_fused_attention_is_told_with_its_exponentials_and_views_not_at_all():
    class Attention(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x).mT.flatten(1, 2)

    rows = operators(Attention(), (2, 3, 5, 4)).rows
    assert ("fused attention", 2 * 3 * 25) in [(row.kind, row.scores) for row in rows]
    assert {row.kind for row in rows} <= {"fused attention", "elementwise"}
    assert operators(nn.Flatten(), (2, 3, 5)).rows == ()


def test_bytes_moved_are_those_of_inputs_and_outputs():
    (row,) = operators(nn.ReLU(), (2, 8, 4, 4)).rows
    assert (row.moved, row.held) == (2 * 4 * 256, 4 * 256)
