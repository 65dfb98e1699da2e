"""Local attention in Triton against the definition in float64: forward and every gradient, in both forms."""

from dataclasses import dataclass, replace

import pytest
import torch

import foveal
from foveal.functional.local import reference
from foveal.kernels.triton import local as kernels
from foveal.kernels.triton.configs import Config
from kernels.gpu.cases.place import DEVICE, assert_near, laid_out, with_gradients


@dataclass(frozen=True)
class Call:
    """One call; ``tables`` says how the query's depth meets them, ``tile`` forces a cut with several programs."""

    space: tuple[int, ...]
    window: tuple[int, ...]
    depths: tuple[int, int] = (6, 3)
    tables: str | None = None
    border: str = "zero"
    dilation: int = 1
    masked: bool = False
    layout: str = "first"
    dtype: torch.dtype = torch.float32
    batch: int = 1
    heads: int = 2
    tile: tuple[int, int, int] | None = None


CALLS = {
    "rows and columns": Call((5, 7), (3, 5), tables="split", layout="last", tile=(1, 4, 4)),
    "all options": Call((3, 5), (3, 3), (6, 5), "split", "mask", 2, True, "sliced", batch=2, heads=1, tile=(1, 4, 4)),
    "one axis": Call((19,), (5,), (4, 20), "whole", masked=True, batch=2, heads=1, tile=(1, 1, 16)),
    "three axes": Call((3, 4, 2), (3, 1, 3), (7, 3), "split", "mask", heads=1, tile=(2, 2, 4)),
    "three axes, tables whole": Call((2, 3, 4), (1, 3, 3), (4, 5), "whole", heads=1, tile=(2, 2, 4)),
    "smaller than the window": Call((2, 1), (7, 3), (3, 3), "split", dilation=9, heads=1, tile=(1, 4, 4)),
    "no tables": Call((5, 3), (3, 3), (16, 16), border="mask", masked=True, heads=1, tile=(1, 4, 4)),
    "float16": Call((5, 4), (3, 3), (16, 8), "split", layout="last", dtype=torch.float16, heads=1, tile=(1, 4, 4)),
    "bfloat16": Call((9,), (3,), (16, 8), "whole", dtype=torch.bfloat16, tile=(1, 1, 16)),
    "the rule's tile": Call((9, 10), (5, 5), (8, 8), "split", heads=1),
}


def tensors_of(call):
    axes, depth = len(call.space), call.depths[0]
    shares = [depth // axes + (a < depth % axes) for a in range(axes)]
    depths = {None: [], "split": shares, "whole": [depth] * axes}[call.tables]
    heads = call.heads if call.tables == "split" else 1
    maps = [laid_out((call.batch, call.heads, d, *call.space), call.layout, call.dtype) for d in (depth, *call.depths)]
    tables = [torch.randn(heads, w, d).to(DEVICE, call.dtype) for w, d in zip(call.window, depths, strict=False)]
    mask = torch.rand(call.batch, *call.space) > 0.5 if call.masked else None
    if mask is not None:
        mask[0] = False
    return [*maps, *tables], None if mask is None else mask.to(DEVICE)


def attend(call, mask, evaluate, **configs):
    def run(q, k, v, *tables):
        settings = (list(call.window), [call.dilation] * len(call.space), 0.7, call.border == "mask")
        return evaluate(q, k, v, list(tables), mask, *settings, **configs)

    return run


def config(call, form):
    """A cut into several programs, or the rule's where the call has none."""
    if call.tile is None:
        return {}
    cut = Config(form, call.tile, 16 if form == "tile" else 4)
    return {"forward": cut, "backward": cut}


by_form = pytest.mark.parametrize("form", ["gather", "tile"])


@by_form
@pytest.mark.parametrize("name", CALLS)
def test_results_and_gradients_are_those_of_the_definition(name, form):
    call = CALLS[name]
    if call.tile is None and form == "tile":
        call = replace(call, depths=(20, 17))
    tensors, mask = tensors_of(call)
    got = with_gradients(attend(call, mask, kernels.local_attention, **config(call, form)), tensors)
    exact = [x.double() for x in tensors]
    wanted = with_gradients(attend(call, mask, reference), exact)
    assert_near(got, wanted, call.dtype)


@by_form
def test_offsets_of_64_bits_give_the_same_bits(monkeypatch, form):
    call = Call((7,), (3,), (3, 2), "whole", masked=True, batch=2, heads=1, tile=(1, 1, 16))
    tensors, mask = tensors_of(call)
    run = attend(call, mask, kernels.local_attention, **config(call, form))
    narrow = with_gradients(run, tensors)
    monkeypatch.setattr(kernels, "_reach", lambda x: 2**31)
    assert all(torch.equal(a, b) for a, b in zip(narrow, with_gradients(run, tensors), strict=True))


@by_form
def test_two_runs_give_the_same_bits(form):
    call = Call((20,), (3,), (3, 3), "whole", heads=1, tile=(1, 1, 16))
    tensors, mask = tensors_of(call)
    run = attend(call, mask, kernels.local_attention, **config(call, form))
    assert all(torch.equal(a, b) for a, b in zip(*(with_gradients(run, tensors) for _ in range(2)), strict=True))


@by_form
def test_large_logits_stay_finite(form):
    call = Call((4, 4), (3, 3), (3, 3), "split", heads=1, tile=(1, 4, 4))
    tensors, mask = tensors_of(call)
    run = attend(call, mask, kernels.local_attention, **config(call, form))
    assert all(x.isfinite().all() for x in with_gradients(run, [1e4 * x for x in tensors]))


def test_the_operation_runs_it_by_name_and_an_empty_batch_too():
    q = laid_out((1, 2, 4, 5)).requires_grad_()
    out = foveal.local_attention(q, q, q, kernel_size=3, border="mask", backend="triton")
    wanted = foveal.local_attention(q, q, q, kernel_size=3, border="mask", backend="reference")
    torch.testing.assert_close(out, wanted)
    none = q[:0].detach().requires_grad_()
    out = foveal.local_attention(none, none, none, kernel_size=3, backend="triton")
    out.sum().backward()
    assert out.shape == none.shape == none.grad.shape


def test_second_derivatives_are_refused():
    q = laid_out((1, 1, 2, 3)).requires_grad_()
    out = foveal.local_attention(q, q, q, kernel_size=3, backend="triton")
    (grad,) = torch.autograd.grad(out.sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives are only available with backend='reference'"):
        grad.sum().backward()


def test_the_operators_keep_what_they_promise_torch():
    q, k, v = (laid_out((1, 1, 3, 4)).requires_grad_() for _ in range(3))
    tables = [torch.randn(1, 3, 3, device=DEVICE, requires_grad=True)]
    settings = ([3], [1], 0.5, False, None)
    # Fake tensors and compilation need Triton's compiler, not its interpreter.
    checks = {"test_utils": ("test_schema", "test_autograd_registration")} if DEVICE == "cpu" else {}
    ops = torch.ops.foveal
    torch.library.opcheck(ops.triton_local_attention.default, (q, k, v, tables, None, *settings, None), **checks)
    out, lse = (x.detach() for x in ops.triton_local_attention(q, k, v, tables, None, *settings, None))
    inner = [x.detach() for x in (v, out, lse, q, k, v)]
    arguments = (*inner, [x.detach() for x in tables], None, *settings)
    torch.library.opcheck(ops.triton_local_attention_backward.default, arguments, **checks)
