"""Without a GPU: torch.compile traces the operators whole, and Triton's compiler makes code for one of their kernels.

Tensors are fake and on CUDA, and a stand-in says which GPU there would be, so nothing is launched.
"""

import logging
from importlib.util import find_spec

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import foveal
from foveal.kernels.triton import local

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
OPS = torch.ops.foveal


@pytest.fixture
def hopper(monkeypatch):
    """Triton believes in an H100."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    class Hopper:
        def get_current_target(self):
            return GPUTarget("cuda", 90, 32)

        def get_current_device(self):
            return 0

    monkeypatch.setattr(driver, "_active", Hopper())
    return GPUTarget("cuda", 90, 32)


def fake(*shape):
    return torch.empty(*shape, device="cuda", dtype=torch.bfloat16)


def local_calls(size):
    q, k, v = (fake(2, size, size, 4, 32).permute(0, 3, 4, 1, 2) for _ in range(3))
    tables = [fake(4, 7, 16), fake(4, 7, 16)]
    lse = torch.empty(2, 4, size, size, device="cuda")
    settings = ([7, 7], [1, 1], 1.0, False, None)
    yield lambda *t: foveal.local_attention(*t[:3], kernel_size=7, relative=t[3:], backend="triton"), (q, k, v, *tables)
    yield (
        lambda *t: OPS.triton_local_attention_backward(*t[:6], list(t[6:]), None, *settings),
        (v, v, lse, q, k, v, *tables),
    )


def external_calls(size):
    x, key, value = fake(2, 1, 96, size, size), fake(1, 32, 96), fake(1, 32, 96)
    stats = torch.empty(2, 1, 2, 32, device="cuda")
    yield lambda *t: foveal.external_attention(t[0], t[1][0], t[2][0], backend="triton"), (x, key, value)
    flat = x.flatten(3)
    yield (
        lambda *t: OPS.triton_external_attention_backward(*t, None, None, True, 1e-9),
        (flat, stats, flat, key, value),
    )


@pytest.mark.parametrize("calls", [local_calls, external_calls])
def test_operators_compile_whole_and_from_the_third_size_on_not_anew(calls, hopper, caplog):
    from functorch.compile import aot_module_simplified, make_boxed_func

    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    torch._dynamo.reset()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), caplog.at_level(logging.WARNING):
        compiled = [
            torch.compile(f, fullgraph=True, backend=lambda g, x: aot_module_simplified(g, x, keep))
            for f, _ in calls(20)
        ]
        counts = []
        for size in (20, 28, 52):
            for run, (_, tensors) in zip(compiled, calls(size), strict=True):
                assert run(*tensors) is not None
            counts.append(len(graphs))
    assert counts == [2, 4, 4]
    launched = [sum("triton_kernel_wrapper" in str(n.target) for n in graph.graph.nodes) for graph in graphs]
    assert all(launched)
    # torch reads from the compiled kernels what they write; where they do not compile it only warns.
    assert "identify_" not in caplog.text


class Recorded:
    """Stands for ``launcher``: keeps the launches instead of making them."""

    def __init__(self):
        self.launches = []

    def __call__(self, kernel):
        self.kernel = kernel
        return self

    def __getitem__(self, grid):
        return lambda *arguments, **options: self.launches.append((self.kernel, arguments, options))


def compiled(kernel, arguments, options, target):
    """What Triton's compiler makes of one launch."""
    import triton
    from triton.compiler import ASTSource

    kinds = {torch.float32: "*fp32", torch.bfloat16: "*bf16", int: "i32", float: "fp32"}
    signature, constants = {}, {}
    for place, name in enumerate(kernel.arg_names):
        value = options[name] if name in options else arguments[place]
        if name in options or (isinstance(value, int) and value == 1):
            signature[name], constants[(place,)] = "constexpr", value
        else:
            signature[name] = kinds[value.dtype if isinstance(value, torch.Tensor) else type(value)]
    how = {name: options[name] for name in ("num_warps", "num_stages")}
    return triton.compile(ASTSource(kernel, signature, constants), target=target, options=how)


def test_the_tile_form_runs_on_matrix_units_and_fits_shared_memory(hopper, monkeypatch):
    recorded = Recorded()
    monkeypatch.setattr(local, "launcher", recorded)
    q, k, v = (torch.empty(1, 2, 32, 16, 16, dtype=torch.bfloat16) for _ in range(3))
    tables = [torch.empty(2, 7, 16, dtype=torch.bfloat16) for _ in range(2)]
    with torch.no_grad():
        local.local_attention(q, k, v, tables, None, [7, 7], [1, 1], 1.0, False)
    made = compiled(*recorded.launches[0], hopper)
    assert "wgmma" in made.asm["ptx"]
    assert made.metadata.shared <= 99 * 1024  # what a block may have on every GPU since Ampere's consumer chips
