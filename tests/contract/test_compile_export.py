"""Compilation, export and the registered operators, for every layer."""

import importlib
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


# Operators that torch.compile looks into: registered when they are first called, since that loads its compiler.
ON_GPUS = ("local", "efficient", "external", "explicit")
for mechanism in ON_GPUS:
    importlib.import_module(f"foveal.kernels.triton.{mechanism}")
importlib.import_module("foveal.models.points.neighbours")

# Operators that tell about the kernels, not about maps.
ABOUT_KERNELS = {"cpu_exp2", "cpu_instruction_set"}


def registered():
    names = torch._C._dispatch_get_all_op_names()
    return {name.removeprefix("foveal::") for name in names if name.startswith("foveal::")}


def test_the_registered_operators_are_the_known_ones():
    attention = {"local_attention", "local_attention_backward"}
    native = {"cpu_local_attention", "cpu_local_attention_backward"}
    native |= {"cpu_explicit_attention", "cpu_explicit_attention_backward"}
    for name in ("efficient_context", "efficient_read", "efficient_folded", "external_slots"):
        native |= {f"cpu_{name}", f"cpu_{name}_backward"}
    native |= {"cpu_efficient_context_backward_add_", "cpu_external_unit"}
    triton = {f"triton_{name}_attention{way}" for name in ON_GPUS for way in ("", "_backward")}
    assert registered() == attention | native | triton | {"farthest_points"} | ABOUT_KERNELS


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
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_native_local_attention_passes_opcheck(channels_last, masked, packed):
    q, k, v = (torch.randn(1, 5, 6, 2, 3).permute(0, 3, 4, 1, 2).requires_grad_() for _ in range(3))
    grad = v.detach()
    if packed:
        q, k, v = torch.randn(1, 5, 6, 6, 3).permute(0, 3, 4, 1, 2).requires_grad_(), None, None
    tables = [torch.randn(2, 3, 3, requires_grad=True) for _ in range(2)]
    mask = torch.rand(1, 5, 6) > 0.5 if masked else None
    arguments = (q, k, v, *tables, mask, 3, 3, 1, 1, 0.5, masked, channels_last, True)
    torch.library.opcheck(torch.ops.foveal.cpu_local_attention.default, arguments)
    maps, tables = [x if x is None else x.detach() for x in (q, k, v)], [x.detach() for x in tables]
    lse = torch.zeros(1, 2, 5, 6)
    arguments = (grad, lse, *maps, *tables, mask, 3, 3, 1, 1, 0.5, masked, channels_last)
    torch.library.opcheck(torch.ops.foveal.cpu_local_attention_backward.default, arguments)


def flat(channels, last, heads=2):
    """Maps (batch, heads, channels, positions) of 7 positions in either memory format."""
    if last:
        return torch.randn(2, 7, heads, channels).permute(0, 2, 3, 1).requires_grad_()
    return torch.randn(2, heads, channels, 7, requires_grad=True)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("scaling", [False, True])
def test_native_efficient_attention_passes_opcheck(last, scaling):
    ops, mask = torch.ops.foveal, torch.rand(2, 7) > 0.5
    k, v = flat(3, last), flat(5, last)
    weight, bias = torch.randn(2, 3, 5, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    torch.library.opcheck(ops.cpu_efficient_context.default, (k, None, None, v, mask, scaling))
    torch.library.opcheck(ops.cpu_efficient_context.default, (v, weight, bias, None, None, scaling))
    read = torch.randn(2, 2, 3, 5, requires_grad=True)
    for x, *linear in ((k, None, None), (v, weight, bias)):
        settings = (None, 1, 0 if scaling else 1, False)
        torch.library.opcheck(ops.cpu_efficient_read.default, (x, *linear, None, read, None, *settings, False, last))
        inner = [t if t is None else t.detach() for t in (flat(5, last), x, *linear, None, read, None)]
        torch.library.opcheck(ops.cpu_efficient_read_backward.default, (*inner, *settings, last))
    held, stats = ops.cpu_efficient_context(k, None, None, v, mask, scaling)
    inner = [t.detach() for t in (read, held, stats, k)]
    inner += [None, None, v.detach(), mask, scaling, last]
    torch.library.opcheck(ops.cpu_efficient_context_backward.default, inner)
    held, stats = ops.cpu_efficient_context(v, weight, bias, None, None, scaling)
    inner = [t.detach() for t in (torch.zeros_like(v), read, held, stats, v, weight, bias)]
    torch.library.opcheck(ops.cpu_efficient_context_backward_add_.default, (*inner, scaling))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_native_folded_efficient_attention_passes_opcheck(last, biased):
    x, small = flat(6, last, heads=1), []
    for rows, columns in ((4, 6), (4, 6), (2, 6), (6, 2)):
        small += [torch.randn(rows, columns, requires_grad=True)]
        small += [torch.randn(rows, requires_grad=True) if biased else None]
    arguments = (x, *small, 2, True, last)
    torch.library.opcheck(torch.ops.foveal.cpu_efficient_folded.default, arguments)
    _, held, stats = torch.ops.foveal.cpu_efficient_folded(*arguments)
    inner = [t if t is None else t.detach() for t in (flat(6, last, heads=1), held, stats, x, *small)]
    torch.library.opcheck(torch.ops.foveal.cpu_efficient_folded_backward.default, (*inner, 2, True, last))


@pytest.mark.parametrize("last", [False, True])
def test_native_external_attention_passes_opcheck(last):
    ops, x, mask = torch.ops.foveal, flat(5, last), torch.rand(2, 7) > 0.5
    weight, bias = torch.randn(1, 3, 5, requires_grad=True), torch.randn(1, 3, requires_grad=True)
    arguments = (x, weight, bias, mask)
    torch.library.opcheck(ops.cpu_external_slots.default, arguments)
    scores, stats = (t.detach().requires_grad_() for t in ops.cpu_external_slots(*arguments))
    read, out_bias = torch.randn(1, 1, 3, 5, requires_grad=True), torch.randn(1, 5, requires_grad=True)
    arguments = (scores, None, None, stats, read, out_bias, mask, 1, 2, False)
    torch.library.opcheck(ops.cpu_efficient_read.default, (*arguments, False, last))
    inner = [t.detach() for t in (scores, stats, scores, stats, x, weight, bias)]
    torch.library.opcheck(ops.cpu_external_slots_backward.default, (*inner, mask, last))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("weights", [1, 2])
def test_native_external_unit_passes_opcheck(last, weights):
    x = flat(6, last, heads=1).detach()
    small = (torch.randn(1, 4, 6), torch.randn(1, 4), torch.randn(1, 1, 4, 6), torch.randn(1, 6))
    torch.library.opcheck(torch.ops.foveal.cpu_external_unit.default, (x, *small, 2, weights, True, True, last))


def test_every_registered_operator_has_a_flop_formula():
    from torch.utils.flop_counter import flop_registry

    for name in registered() - ABOUT_KERNELS:
        assert getattr(torch.ops.foveal, name) in flop_registry
