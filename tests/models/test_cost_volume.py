"""The convolution of a cost volume that is never stored, against the volume as it is defined."""

import pytest
import torch
import torch.nn.functional as F

from foveal.errors import OptionError, ShapeError
from foveal.models.stereo import cost_volume, volume_conv


def maps(rows, columns, channels=2, dtype=torch.float64):
    torch.manual_seed(rows * columns)
    return [torch.randn(2, channels, rows, columns, dtype=dtype, requires_grad=True) for _ in range(2)]


def weight(out, channels, dtype=torch.float64):
    return torch.randn(out, 2 * channels, 3, 3, 3, dtype=dtype, requires_grad=True)


def stored(left, right, w, disparities):
    return F.conv3d(cost_volume(left, right, disparities), w, padding=1)


def test_a_disparity_shifts_the_right_map_and_leaves_zeros():
    left, right = torch.arange(1.0, 5).view(1, 1, 1, 4), torch.arange(5.0, 9).view(1, 1, 1, 4)
    volume = cost_volume(left, right, 3)
    assert volume[0, 0, :, 0].tolist() == [[1, 2, 3, 4], [0, 2, 3, 4], [0, 0, 3, 4]]
    assert volume[0, 1, :, 0].tolist() == [[5, 6, 7, 8], [0, 5, 6, 7], [0, 0, 5, 6]]


# Fewer and more disparities than columns, one of either, maps narrower than the kernel.
SIZES = [(4, 3, 7), (1, 2, 5), (6, 2, 3), (3, 4, 4), (5, 2, 2), (2, 1, 1), (8, 5, 8), (1, 1, 1)]


@pytest.mark.parametrize(("disparities", "rows", "columns"), SIZES)
def test_no_volume_is_needed_for_its_convolution_nor_for_the_gradients(disparities, rows, columns):
    given = (*maps(rows, columns), weight(3, 2))
    wanted, got = stored(*given, disparities), volume_conv(*given, disparities)
    torch.testing.assert_close(got, wanted)
    towards = torch.randn_like(wanted)
    torch.testing.assert_close(torch.autograd.grad(got, given, towards), torch.autograd.grad(wanted, given, towards))


def test_gradients_are_those_of_finite_differences():
    given = (*maps(2, 5, channels=1), weight(1, 1))
    assert torch.autograd.gradcheck(lambda *all_of: volume_conv(*all_of, 3), given)


def test_maps_in_channels_last_and_a_gradient_with_strides_of_its_own_change_nothing():
    left, right = (x.detach().to(memory_format=torch.channels_last).requires_grad_() for x in maps(3, 6))
    w = weight(2, 2)
    wanted, got = stored(left, right, w, 4), volume_conv(left, right, w, 4)
    towards = torch.randn_like(wanted).contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(torch.autograd.grad(got, left, towards), torch.autograd.grad(wanted, left, towards))


def test_in_bfloat16_it_errs_at_most_twice_as_far_as_the_stored_volume():
    left, right, w = (x.detach() for x in (*maps(8, 24, channels=8), weight(8, 8)))
    low = [x.bfloat16() for x in (left, right, w)]
    exact = stored(*(x.double() for x in low), 8)
    errs = [(run(*low, 8).double() - exact).abs().max() for run in (volume_conv, stored)]
    assert errs[0] <= 2 * errs[1]


def test_it_gives_no_second_derivative_rather_than_a_wrong_one():
    left, right = maps(2, 4)
    (first,) = torch.autograd.grad(volume_conv(left, right, weight(1, 2), 2).square().sum(), left, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_an_empty_batch_stays_empty():
    left, right = (x[:0].detach() for x in maps(2, 4))
    assert volume_conv(left, right, weight(3, 2), 2).shape == (0, 3, 2, 2, 4)


def test_what_does_not_fit_is_said():
    left, right = maps(2, 4)
    with pytest.raises(ShapeError, match=r"^cost_volume: both maps must be .* of one shape, got \(2, 2, 2, 4\) and"):
        cost_volume(left, right[..., 1:], 2)
    with pytest.raises(ShapeError, match=r"^volume_conv: the weight must be \(out, 4, 3, 3, 3\)"):
        volume_conv(left, right, weight(1, 1), 2)
    with pytest.raises(OptionError, match="^volume_conv: disparities must be an integer of at least 1, got 0"):
        volume_conv(left, right, weight(1, 2), 0)
