"""Compilation, export and the registered operators, for every layer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from contract.layers import CASES

by_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
TESTS = Path(__file__).parent.parent


def test_every_layer_compiles_whole_in_a_fresh_process():
    command = [sys.executable, "-m", "contract.compile_layers"]
    done = subprocess.run(
        command, cwd=TESTS, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("compiled ") == len(CASES)


@by_case
def test_exported_programs_take_any_batch_and_give_the_same(case):
    layer, x = case.build((5, 7), dtype=torch.float32).eval(), case.map((5, 7), batch=3, dtype=torch.float32)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    other = case.map((5, 7), batch=2, dtype=torch.float32)
    assert_close(program.module()(other), layer(other))


# Operators that tell about the kernels, not about maps.
ABOUT_KERNELS = {"cpu_exp2", "cpu_instruction_set"}


def registered():
    names = torch._C._dispatch_get_all_op_names()
    return {name.removeprefix("foveal::") for name in names if name.startswith("foveal::")}


def test_the_registered_operators_are_the_known_ones():
    attention = {"local_attention", "local_attention_backward"}
    native = {"cpu_local_attention", "cpu_local_attention_backward"}
    assert registered() == attention | native | ABOUT_KERNELS


@pytest.mark.parametrize("space", [(7,), (5, 6), (3, 4, 2)], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_registered_operators_pass_opcheck(space, masked):
    axes = len(space)
    q, k, v = (torch.randn(1, 2, 3, *space, requires_grad=True) for _ in range(3))
    tables = [torch.randn(2, 3, 3, requires_grad=True) for _ in range(axes)]
    mask = torch.rand(1, *space) > 0.5 if masked else None
    arguments = (q, k, v, tables, mask, [3] * axes, [1] * axes, 0.5, masked)
    torch.library.opcheck(torch.ops.foveal.local_attention.default, arguments)
    inner = tuple(x.detach() for x in (v, q, k, v))
    torch.library.opcheck(
        torch.ops.foveal.local_attention_backward.default,
        (*inner, [t.detach() for t in tables], *arguments[4:]),
    )


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_native_local_attention_passes_opcheck(channels_last, masked):
    q, k, v = (torch.randn(1, 5, 6, 2, 3).permute(0, 3, 4, 1, 2).requires_grad_() for _ in range(3))
    tables = [torch.randn(2, 3, 3, requires_grad=True) for _ in range(2)]
    mask = torch.rand(1, 5, 6) > 0.5 if masked else None
    arguments = (q, k, v, *tables, mask, 3, 3, 1, 1, 0.5, masked, channels_last, True)
    torch.library.opcheck(torch.ops.foveal.cpu_local_attention.default, arguments)
    maps, tables = [x.detach() for x in (q, k, v)], [x.detach() for x in tables]
    lse = torch.zeros(1, 2, 5, 6)
    arguments = (maps[2], lse, *maps, *tables, mask, 3, 3, 1, 1, 0.5, masked, channels_last)
    torch.library.opcheck(torch.ops.foveal.cpu_local_attention_backward.default, arguments)


def test_every_registered_operator_has_a_flop_formula():
    from torch.utils.flop_counter import flop_registry

    for name in registered() - ABOUT_KERNELS:
        assert getattr(torch.ops.foveal, name) in flop_registry
