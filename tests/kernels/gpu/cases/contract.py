"""Every reading of the contract suite by the Triton kernels, in float32, where there is a GPU to be quick on."""

import pytest
import torch

from contract.operations import CASES, SPACES
from contract.test_operations import some_mask, with_gradients
from kernels.gpu.cases.place import assert_near

READINGS = [case for case in CASES if "triton" in case.backends.names()]


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("case", READINGS, ids=lambda c: c.name)
def test_the_kernels_equal_the_definition(case, space, masked):
    tensors = case.tensors(space, dtype=torch.float32)
    mask = some_mask(2, space) if masked else None
    exact = [x.detach().double().requires_grad_() for x in tensors]
    got = with_gradients(case, tensors, "triton", mask)
    assert_near(got, with_gradients(case, exact, "reference", mask), torch.float32)


@pytest.mark.parametrize("case", READINGS, ids=lambda c: c.name)
def test_compiled_it_gives_the_same(case):
    if tensors := case.tensors((9, 8), dtype=torch.float32):
        eager = with_gradients(case, tensors, "triton")
        call = torch.compile(lambda *t: case.call(*t, backend="triton"), fullgraph=True)
        out = call(*tensors)
        torch.testing.assert_close(out, eager[0])
        grads = torch.autograd.grad(
            (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum(), tensors, allow_unused=True
        )
        for got, want in zip(grads, eager[1:], strict=True):
            torch.testing.assert_close(got, want)
