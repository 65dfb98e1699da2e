"""Counts equal what a formula on paper gives."""

from math import log2

import pytest
import torch
from torch import nn

from foveal.analysis import count
from foveal.analysis.count import Counting
from foveal.errors import ShapeError


class Apply(nn.Module):
    """A model of one function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_a_convolution_costs_its_formula_and_is_found_by_module():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 5 * 7, 4))
    counted = count(model, (2, 3, 5, 7))
    convolution, linear = 2 * 5 * 7 * 3 * 8 * 9, 2 * 8 * 5 * 7 * 4
    assert counted.macs == convolution + linear
    assert counted.parameters == 3 * 8 * 9 + 8 + 8 * 5 * 7 * 4 + 4
    rows = {row.name: row for row in counted.modules}
    assert (rows["0"].macs, rows["0"].kind, rows["0"].parameters) == (convolution, "Conv2d", 224)
    assert (rows["1"].macs, rows["3"].macs, rows[""].macs) == (0, linear, counted.macs)


def test_a_shape_counts_the_same_as_a_tensor_without_computing_anything():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    assert count(model, (1, 3, 9, 11)) == count(model, torch.randn(1, 3, 9, 11))
    assert model[0].weight.device.type == "cpu"
    assert model.training


def test_attention_is_counted_although_it_runs_fused():
    n, d = 10, 16
    counted = count(nn.TransformerEncoderLayer(d, 4, 32, batch_first=True), torch.randn(1, n, d))
    assert counted.macs == n * d * (3 * d + d + 2 * 32) + 2 * n * n * d
    assert counted.uncounted == ()


@pytest.mark.parametrize(
    ("transform", "macs"),
    [
        (torch.fft.fft2, 2.5 * 3 * 64 * log2(64)),
        (torch.fft.rfft2, 1.25 * 3 * 64 * log2(64)),
        (lambda x: torch.fft.irfft2(x, s=(8, 8)), 1.25 * 3 * 64 * log2(64)),
    ],
)
def test_a_fourier_transform_follows_the_stated_convention(transform, macs):
    complex_input = torch.randn(1, 3, 8, 5 if macs == 720 and transform is not torch.fft.rfft2 else 8)
    assert count(Apply(transform), complex_input).macs == macs


def test_a_product_of_a_matrix_and_a_vector_is_counted():
    assert count(Apply(lambda x: x[0] @ torch.ones(7)), torch.randn(1, 5, 7)).macs == 35


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_each_gradient_of_a_convolution_costs_what_the_forward_does(kind, groups):
    conv = kind(4, 8, 3, stride=2, groups=groups)
    with Counting() as counting:
        out = conv(torch.randn(2, 4, 9, 11, requires_grad=True))
        forward = counting.flops()
        out.backward(torch.ones_like(out))
    assert forward == 2 * 2 * conv.weight.numel() * (9 * 11 if kind is nn.ConvTranspose2d else 4 * 5)
    assert counting.flops() == 3 * forward


def test_an_operator_without_a_formula_is_named_and_not_silent():
    @torch.library.custom_op("foveal_test::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    with pytest.warns(UserWarning, match=r"^count: foveal_test\.twice ran without a formula"):
        counted = count(Apply(lambda x: twice(x @ x.mT)), torch.randn(1, 5, 7))
    assert counted.uncounted == ("foveal_test.twice",)
    assert counted.macs == 5 * 5 * 7


def test_an_operator_of_torch_that_hides_products_is_named():
    with pytest.warns(UserWarning, match=r"aten\._cdist_forward"):
        assert count(Apply(lambda x: torch.cdist(x, x)), torch.randn(1, 3, 4)).uncounted == ("aten._cdist_forward",)


def test_a_shape_that_is_none_is_refused():
    with pytest.raises(
        ShapeError, match=r"^count: the example's shape must be positive sizes, batch first, got \(0, 3\)"
    ):
        count(nn.Linear(3, 3), (0, 3))


def test_a_tuple_of_tensors_is_what_a_model_of_several_inputs_takes():
    both = nn.MultiheadAttention(8, 2, batch_first=True)
    queries, keys = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    assert count(both, (queries, keys, keys)).macs == 8 * 8 * (3 + 5 + 5 + 3) + 3 * 5 * 8 * 2


def test_tensors_and_sizes_are_not_mixed():
    with pytest.raises(ShapeError, match=r"^count: the example must be tensors alone or a shape, got both\."):
        count(Apply(torch.add), (torch.ones(1, 3), 3))
