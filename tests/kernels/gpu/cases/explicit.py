"""Explicit attention in Triton against the definition in float64: forward and every gradient."""

import pytest
import torch

import foveal
from foveal.kernels.triton import explicit
from kernels.gpu.cases.place import DEVICE, assert_near, laid_out, with_gradients

# Batch, heads, channels, space, layout, type.
CALLS = {
    "one position": (1, 1, 1, (1,), "first", torch.float32),
    "one axis": (2, 1, 2, (21,), "sliced", torch.float32),
    "rows and columns": (2, 2, 3, (5, 18), "last", torch.float32),
    "float16": (1, 1, 2, (9, 8), "first", torch.float16),
    "bfloat16": (1, 1, 2, (9, 8), "last", torch.bfloat16),
}


def attend(backend, decay, offset):
    return lambda v, r: foveal.explicit_attention(v, decay=decay, radius=r, offset=offset, backend=backend)


@pytest.mark.parametrize("decay", ["gaussian", "manhattan"])
@pytest.mark.parametrize("by_head", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_results_and_gradients_are_those_of_the_definition(name, decay, by_head):
    batch, heads, channels, space, layout, dtype = CALLS[name]
    radius = torch.rand((heads,) if by_head else ()) + 0.3
    tensors = [laid_out((batch, heads, channels, *space), layout, dtype), radius.to(DEVICE, dtype)]
    offset = 0.0 if by_head else 1.0
    got = with_gradients(attend("triton", decay, offset), tensors)
    assert_near(got, with_gradients(attend("reference", decay, offset), [x.double() for x in tensors]), dtype)


def test_an_empty_batch_is_empty_and_a_long_axis_or_a_mask_is_refused():
    v, radius = laid_out((0, 1, 2, 3, 4)), torch.tensor(0.5, device=DEVICE)
    assert with_gradients(attend("triton", "gaussian", 1.0), [v, radius])[0].shape == v.shape
    with pytest.raises(foveal.BackendError, match="its axes go up to 64 positions, got 65"):
        attend("triton", "gaussian", 1.0)(laid_out((1, 1, 1, 65)), radius)
    mask = torch.ones(0, 3, 4, dtype=torch.bool, device=DEVICE)
    with pytest.raises(foveal.BackendError, match="it takes no mask"):
        foveal.explicit_attention(v, decay="gaussian", radius=radius, mask=mask, backend="triton")


def test_the_operators_keep_what_they_promise_torch():
    v, rows, columns, scale = (
        torch.randn(s, device=DEVICE) for s in ((1, 1, 2, 3, 4), (1, 3, 3), (1, 4, 4), (1, 3, 4))
    )
    given = tuple(x.requires_grad_() for x in (v, rows, columns, scale))
    checks = {"test_utils": ("test_schema", "test_autograd_registration")} if DEVICE == "cpu" else {}
    assert explicit.triton_explicit_attention  # registered
    ops = torch.ops.foveal
    torch.library.opcheck(ops.triton_explicit_attention.default, (*given, 1.0), **checks)
    inner = tuple(x.detach() for x in (given[0], *given))
    torch.library.opcheck(ops.triton_explicit_attention_backward.default, (*inner, 1.0, True), **checks)
