"""Efficient attention in Triton against the definition in float64: forward and every gradient."""

import pytest
import torch

import foveal
from foveal.kernels.triton import efficient as kernels
from kernels.gpu.cases.place import DEVICE, assert_near, laid_out, with_gradients

# Batch, heads, depth, depth of the values, space of the queries, space of the keys, layout, type.
CALLS = {
    "one block": (1, 1, 1, 1, (1,), (1,), "first", torch.float32),
    "several blocks of columns": (1, 2, 5, 70, (9, 8), (9, 8), "last", torch.float32),
    "other keys, sliced": (2, 1, 17, 3, (7,), (3, 4, 5), "sliced", torch.float32),
    "float16": (1, 1, 20, 16, (5, 16), (5, 16), "last", torch.float16),
    "bfloat16": (1, 1, 16, 8, (11,), (70,), "first", torch.bfloat16),
}


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch):
    monkeypatch.setattr(kernels, "CHUNK", 32)


def attend(backend, **options):
    return lambda q, k, v: foveal.efficient_attention(q, k, v, backend=backend, **options)


@pytest.mark.parametrize("normalization", ["softmax", "scaling"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_results_and_gradients_are_those_of_the_definition(name, normalization, masked):
    batch, heads, d, e, space, keys, layout, dtype = CALLS[name]
    shapes = [(batch, heads, d, *space), (batch, heads, d, *keys), (batch, heads, e, *keys)]
    tensors = [laid_out(shape, layout, dtype) for shape in shapes]
    mask = torch.rand(batch, *keys, device=DEVICE) > 0.4 if masked else None
    if masked and batch > 1:
        mask[0] = False
    options = {"normalization": normalization, "mask": mask}
    got = with_gradients(attend("triton", **options), tensors)
    wanted = with_gradients(attend("reference", **options), [x.double() for x in tensors])
    assert_near(got, wanted, dtype)


def test_large_scores_stay_finite():
    tensors = [1e4 * laid_out((1, 1, 3, 70)) for _ in range(3)]
    assert all(x.isfinite().all() for x in with_gradients(attend("triton"), tensors))


def test_two_runs_give_the_same_bits_and_an_empty_batch_is_empty():
    tensors = [laid_out((1, 1, 3, 70)) for _ in range(3)]
    first, second = (with_gradients(attend("triton"), tensors) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert with_gradients(attend("triton"), [x[:0] for x in tensors])[0].shape == (0, 1, 3, 70)


def test_the_operators_keep_what_they_promise_torch():
    q, k, v = (laid_out((1, 1, 3, 4)).requires_grad_() for _ in range(3))
    checks = {"test_utils": ("test_schema", "test_autograd_registration")} if DEVICE == "cpu" else {}
    ops = torch.ops.foveal
    torch.library.opcheck(ops.triton_efficient_attention.default, (q, k, v, None, False), **checks)
    _, held, stats = (x.detach() for x in ops.triton_efficient_attention(q, k, v, None, False))
    inner = [x.detach() for x in (v, held, stats, q, k, v)]
    torch.library.opcheck(ops.triton_efficient_attention_backward.default, (*inner, None, False), **checks)
