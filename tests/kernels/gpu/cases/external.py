"""External attention in Triton against the definition in float64: forward and every gradient."""

import pytest
import torch

import foveal
from foveal.kernels.triton import efficient, external
from kernels.gpu.cases.place import DEVICE, assert_near, laid_out, with_gradients

# Batch, heads, depths of the memories, slots, space, layout, type.
CALLS = {
    "one of each": (1, 1, 1, 1, 1, (1,), "first", torch.float32),
    "several blocks": (1, 2, 70, 66, 5, (9, 8), "last", torch.float32),
    "many slots, sliced": (2, 1, 3, 7, 20, (2, 3, 5), "sliced", torch.float32),
    "float16": (1, 1, 20, 16, 9, (5, 16), "last", torch.float16),
    "bfloat16": (1, 1, 16, 8, 5, (11,), "first", torch.bfloat16),
}


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch):
    monkeypatch.setattr(efficient, "CHUNK", 32)


def attend(backend, **options):
    def run(x, key, value, *bias):
        return foveal.external_attention(x, key, value, key_bias=bias[0] if bias else None, backend=backend, **options)

    return run


@pytest.mark.parametrize("normalization", ["double", "softmax"])
@pytest.mark.parametrize("by_head", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_results_and_gradients_are_those_of_the_definition(name, normalization, by_head):
    batch, heads, d, e, slots, space, layout, dtype = CALLS[name]
    own = (heads,) if by_head else ()
    small = [torch.randn(*own, slots, d) / d**0.5, torch.randn(*own, slots, e)]
    small += [torch.randn(*own, slots)] if by_head else []
    tensors = [laid_out((batch, heads, d, *space), layout, dtype), *(x.to(DEVICE, dtype) for x in small)]
    mask = torch.rand(batch, *space, device=DEVICE) > 0.4 if by_head else None
    if by_head and batch > 1:
        mask[0] = False
    options = {"normalization": normalization, "mask": mask}
    got = with_gradients(attend("triton", **options), tensors)
    wanted = with_gradients(attend("reference", **options), [x.double() for x in tensors])
    assert_near(got, wanted, dtype)


def test_positions_that_no_slot_sees_stay_zero():
    x = torch.zeros(1, 1, 1, 100, device=DEVICE)
    x[..., 0] = 500.0
    memory = torch.ones(2, 1, device=DEVICE)
    told = [foveal.external_attention(x, memory, memory, backend=name) for name in ("triton", "reference")]
    torch.testing.assert_close(*told)
    assert not told[0][..., 1:].any()


def test_two_runs_give_the_same_bits_and_an_empty_batch_is_empty():
    tensors = [laid_out((1, 1, 3, 70)), torch.randn(4, 3, device=DEVICE), torch.randn(4, 2, device=DEVICE)]
    first, second = (with_gradients(attend("triton"), tensors) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert with_gradients(attend("triton"), [tensors[0][:0], *tensors[1:]])[0].shape == (0, 1, 2, 70)


def test_the_operators_keep_what_they_promise_torch():
    x, key, value = (t.requires_grad_() for t in (laid_out((1, 1, 3, 4)), laid_out((1, 2, 3)), laid_out((1, 2, 3))))
    checks = {"test_utils": ("test_schema", "test_autograd_registration")} if DEVICE == "cpu" else {}
    assert external.triton_external_attention  # registered
    ops = torch.ops.foveal
    settings = (None, None, True, 1e-9)
    torch.library.opcheck(ops.triton_external_attention.default, (x, key, value, *settings), **checks)
    out, stats = (t.detach() for t in ops.triton_external_attention(x, key, value, *settings))
    inner = (out, stats, *(t.detach() for t in (x, key, value)))
    torch.library.opcheck(ops.triton_external_attention_backward.default, (*inner, *settings), **checks)
