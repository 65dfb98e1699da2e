"""What every operation promises, in every reading, on every kind of map."""

import pytest
import torch
from torch.testing import assert_close

from contract.operations import CASES, HEADS, SPACES, VALUE_DEPTH
from foveal import functional

by_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
by_space = pytest.mark.parametrize("space", SPACES, ids=str)


def some_mask(batch, space):
    """About half of the positions, and a first sample without any."""
    mask = torch.rand(batch, *space) > 0.5
    mask.flatten(1)[:, 0] = True
    mask[0] = False
    return mask


def with_gradients(case, tensors, backend, mask=None):
    out = case.call(*tensors, mask=mask, backend=backend)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    grads = torch.autograd.grad((out * weights).sum(), tensors, allow_unused=True)
    return [out, *(torch.zeros_like(x) if g is None else g for g, x in zip(grads, tensors, strict=True))]


def test_every_operation_is_in_the_suite():
    told = {case.name.split(",")[0].replace(" ", "_") + "_attention" for case in CASES}
    assert told == set(functional.__all__)


@by_space
@by_case
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_every_backend_equals_the_definition(case, space, masked):
    tensors, mask = case.tensors(space), some_mask(2, space) if masked else None
    wanted = with_gradients(case, tensors, "reference", mask)
    names = case.fitting(*tensors, mask=mask)
    assert len(names) >= 2
    for name in [None, *names]:
        for got, want in zip(with_gradients(case, tensors, name, mask), wanted, strict=True):
            assert_close(got, want, rtol=1e-9, atol=1e-10)


@by_case
def test_gradients_are_those_of_finite_differences(case):
    tensors, mask = case.tensors((3, 2)), some_mask(2, (3, 2))
    assert torch.autograd.gradcheck(lambda *t: case.call(*t), tensors)
    assert torch.autograd.gradcheck(lambda *t: case.call(*t, mask=mask), tensors)


@by_space
@by_case
def test_an_empty_batch_gives_an_empty_map(case, space):
    tensors = case.tensors(space, batch=0)
    out = case.call(*tensors)
    assert out.shape == (0, HEADS, VALUE_DEPTH, *space)
    out.sum().backward()
    assert all(x.grad is not None and not x.grad.isnan().any() for x in tensors if x.numel() == 0)


@by_case
def test_strides_do_not_matter(case):
    space = (5, 7)
    plain = case.tensors(space, grad=False)
    wanted = case.call(*plain)
    # Channels last, and every second element of a larger tensor, whose other elements are NaN.
    last = [x.movedim(2, -1).contiguous().movedim(-1, 2) if x.dim() == 5 else x for x in plain]
    assert_close(case.call(*last), wanted)
    spread = []
    for x in plain:
        wide = x.new_full((*x.shape, 2), torch.nan)
        wide[..., 0] = x
        spread.append(wide[..., 0])
    assert_close(case.call(*spread), wanted)


@by_case
def test_a_map_without_any_key_gives_zeros_and_finite_gradients(case):
    tensors = case.tensors((4, 3))
    out = case.call(*tensors, mask=torch.zeros(2, 4, 3, dtype=torch.bool))
    assert (out == 0).all()
    out.sum().backward()
    assert all(x.grad is None or x.grad.isfinite().all() for x in tensors)


@by_case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_errs_at_most_twice_as_far_as_the_definition_in_that_type(case, dtype):
    exact = case.tensors((9, 8), grad=False)
    low = [x.to(dtype) for x in exact]
    truth = case.call(*[x.double() for x in low], backend="reference")
    out = case.call(*low)
    assert out.dtype == dtype
    assert out.isfinite().all()
    error = (out.double() - truth).square().mean().sqrt()
    allowed = (case.call(*low, backend="reference").double() - truth).square().mean().sqrt()
    # Rounding the exact result once is the least that any evaluation errs.
    least = (truth.to(dtype).double() - truth).square().mean().sqrt()
    assert error <= 2 * torch.maximum(allowed, least)


@by_case
def test_large_logits_stay_finite(case):
    tensors = [
        (1e4 * x).detach().requires_grad_() if x.dim() > 2 else x for x in case.tensors((5, 7), dtype=torch.float32)
    ]
    out = case.call(*tensors)
    out.sum().backward()
    assert out.isfinite().all()
    assert all(x.grad.isfinite().all() for x in tensors if x.grad is not None)


@by_case
def test_autocast_gives_its_own_type(case):
    tensors = case.tensors((5, 7), dtype=torch.float32)
    plain = case.call(*tensors)
    with torch.autocast(tensors[0].device.type, torch.bfloat16):
        out = case.call(*tensors)
    assert out.dtype == torch.bfloat16
    assert_close(out.float(), plain, rtol=0.1, atol=0.06)
    out.sum().backward()
    assert all(x.grad is None or x.grad.dtype == torch.float32 for x in tensors)


@by_case
def test_two_runs_give_the_same_bits(case):
    tensors = case.tensors((6, 5), dtype=torch.float32)
    first, second = with_gradients(case, tensors, None), with_gradients(case, tensors, None)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
