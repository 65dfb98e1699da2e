"""The kernels' own exponential and logarithm keep the errors that vec.h states."""

import math

import pytest
import torch

from kernels.native import needs_kernels

pytestmark = needs_kernels
# Quiet NaN as torch makes it, negative, all bits set, and with a payload in the lowest bits.
NANS = torch.tensor([0x7FC00000, -0x400000, 0x7FFFFFFF, -1, 0x7FC00001], dtype=torch.int32).view(torch.float32)


def exp2(x):
    return torch.ops.foveal.cpu_exp2(x, False)


def log2(x):
    return torch.ops.foveal.cpu_exp2(x, True)


def floats(low, high, step):
    """Every step-th float32 from low to high, both positive, and both ends."""
    ends = torch.tensor([low, high]).view(torch.int32).tolist()
    return torch.cat([torch.arange(*ends, step, dtype=torch.int32), torch.tensor(ends, dtype=torch.int32)]).view(
        torch.float32
    )


def test_exp2_errs_by_less_than_2e_7_down_to_minus_126():
    small = floats(2.0**-149, 126.0, 20011)
    x = torch.cat([-small, small, torch.linspace(-126, 127, 200_001), torch.tensor([-0.0, 0.0, 127.0])])
    want = x.double().exp2()
    assert ((exp2(x).double() - want).abs() < 2e-7 * want).all()


def test_exp2_of_whole_numbers_is_exact():
    x = torch.arange(-126.0, 128.0)
    assert torch.equal(exp2(x).double(), x.double().exp2())


def test_exp2_errs_by_at_most_the_least_normal_number_below_minus_126():
    x = -torch.cat([floats(126.0, 3.4e38, 10007), torch.linspace(126, 152, 100_001)])
    got = exp2(x)
    assert (got >= 0).all()
    assert ((got.double() - x.double().exp2()).abs() <= 2.0**-126).all()


def test_exp2_is_exactly_zero_far_below():
    x = -torch.cat([torch.tensor([150.0, 151.0, 2e30, 1e30, math.inf]), floats(150.0, 3.4e38, 99_991)])
    assert not exp2(x).any()


def test_exp2_and_log2_keep_every_nan():
    for values in (NANS, NANS[:1].expand(37).contiguous()):
        assert exp2(values).isnan().all()
        assert log2(values).isnan().all()


def test_log2_keeps_its_stated_error():
    x = torch.cat([floats(2.0**-126, 3.4e38, 10007), torch.linspace(0.5, 2, 200_001), torch.linspace(1, 225, 10_001)])
    want = x.double().log2()
    assert ((log2(x).double() - want).abs() < 2e-7 + 1e-7 * want.abs()).all()
    assert not log2(torch.ones(3)).any()


@pytest.mark.parametrize("count", [0, 1, 3, 15, 17, 33])
def test_a_number_s_exponential_does_not_depend_on_its_neighbours(count):
    x = -torch.rand(count) * 20
    assert torch.equal(exp2(x), torch.cat([exp2(one[None]) for one in x] or [x]))
