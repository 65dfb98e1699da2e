"""Random calls of the native kernels, or of the Triton kernels, against their definitions in float64.

    python tests/kernels/fuzz.py --cases 2000
    python tests/kernels/fuzz.py --operation local --case 17
    python tests/kernels/fuzz.py --backend triton --cases 2000

A case is an operation and a number, and always the same call: shapes, strides, types, masks and options are drawn from
it. Fresh memory is NaN, so what a kernel leaves unwritten, or reads too early, shows. A kernel may err at most twice as
far from float64 as the definition evaluated in the same type does; a few roundings of the largest value are free.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import foveal
from foveal.functional import efficient, explicit, external, local
from foveal.functional.decays import DECAYS, LEARNABLE
from foveal.kernels.triton.load import INTERPRETED

SCRIPT = "tests/kernels/fuzz.py"
# What a definition may write out: most cases are small, some are not.
ELEMENTS = [30_000] * 19 + [400_000]
FREE = {torch.float32: 64, torch.bfloat16: 1, torch.float16: 1}
TYPES = {"native": [torch.float32, torch.float32, torch.bfloat16]}
TYPES["triton"] = [*TYPES["native"], torch.float16]


class Refused(Exception):
    """The native kernel says that it does not take this call."""


@dataclass
class Call:
    """Tensors that may have gradients, by place, and the options that follow them."""

    tensors: list[Tensor]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """How to draw a call of one operation and how to make it."""

    name: str
    backends: Any
    draw: Callable[[random.Random, torch.dtype], Call]
    run: Callable[..., Tensor]


def _space(choose: random.Random, axes: int) -> tuple[int, ...]:
    longest = {1: 90, 2: 22, 3: 7}[axes]
    return tuple(choose.choice([1, 2, 3, 5, 7, choose.randint(1, longest)]) for _ in range(axes))


def _depth(choose: random.Random) -> int:
    return choose.choice([1, 2, 3, 4, 5, 6, 8, 8, 12, 16, 17, 24, 32, 40, 64, 128])


def _batch(choose: random.Random) -> int:
    return choose.choice([0, 1, 1, 2, 2, 3, 4, 5, 7, 8, 9])


def _mask(choose: random.Random, batch: int, space: tuple[int, ...]) -> Tensor | None:
    kind = choose.choice(["none", "none", "some", "few", "one without"])
    if kind == "none":
        return None
    mask = torch.rand(batch, *space) < {"some": 0.6, "few": 0.1, "one without": 0.7}[kind]
    if kind == "one without" and batch:
        mask[choose.randrange(batch)] = False
    return mask


def laid_out(choose: random.Random, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Random numbers under random strides: permuted, sliced out of NaN, or expanded along some axes."""
    if choose.random() < 0.15:
        once = tuple(1 if choose.random() < 0.4 else s for s in shape)
        return torch.randn(once).to(dtype).expand(shape)
    order = list(range(len(shape)))
    kind = choose.choice(["first", "last", "any", "sliced"])
    if kind == "last":
        order = [0, *order[3:], *order[1:3]] if len(shape) > 3 else order[::-1]
    elif kind == "any":
        choose.shuffle(order)
    step = [choose.choice([1, 1, 2]) for _ in shape] if kind == "sliced" else [1] * len(shape)
    held = torch.full([step[a] * shape[a] + choose.randint(0, 2) * (kind == "sliced") for a in order], math.nan)
    view = held.to(dtype).permute([order.index(a) for a in range(len(shape))])
    view = view[tuple(slice(0, n * s, s) for n, s in zip(shape, step, strict=True))]
    return view.copy_(torch.randn(shape))


def _shrink(choose: random.Random, space: tuple[int, ...], work: Callable[[tuple[int, ...]], float]) -> tuple[int, ...]:
    most = choose.choice(ELEMENTS)
    while work(space) > most and max(space) > 1:
        longest = space.index(max(space))
        space = (*space[:longest], (space[longest] + 1) // 2, *space[longest + 1 :])
    return space


def _local(choose: random.Random, dtype: torch.dtype) -> Call:
    axes = choose.choice([1, 2, 2, 2])
    window = [choose.choice([1, 3, 3, 5, 7, 7, 9, 11, 13, 15]) for _ in range(axes)]
    if choose.random() < 0.5:
        window = window[:1] * axes
    batch, heads, depth, value_depth = _batch(choose), choose.randint(1, 4), _depth(choose), _depth(choose)
    if choose.random() < 0.5:
        value_depth = depth
    each = batch * heads * max(depth, value_depth)
    space = _shrink(choose, _space(choose, axes), lambda s: each * math.prod(window) * math.prod(s))
    maps = [laid_out(choose, (batch, heads, d, *space), dtype) for d in (depth, depth, value_depth)]
    if choose.random() < 0.1:
        maps[0] = maps[0] * 20.0
    depths = choose.choice([None, [depth] * axes, _split(choose, depth, axes)])
    tables = [
        laid_out(choose, (choose.choice([1, heads]), w, d), dtype) for w, d in zip(window, depths or [], strict=False)
    ]
    options = {
        "kernel_size": window,
        "dilation": [choose.choice([1, 1, 1, 1, 2, 3, length + 1]) for length in space],
        "border": choose.choice(["zero", "mask"]),
        "scale": choose.choice([1.0, depth**-0.5, 0.3, -0.5, 0.0]),
        "mask": _mask(choose, batch, space),
    }
    return Call([*maps, *tables], options)


def _split(choose: random.Random, depth: int, axes: int) -> list[int]:
    if axes == 1 or depth == 1:
        return [depth] * axes
    first = choose.randint(1, depth - 1)
    return [first, depth - first]


def _efficient(choose: random.Random, dtype: torch.dtype) -> Call:
    batch, heads, depth, value_depth = _batch(choose), choose.randint(1, 4), _depth(choose), _depth(choose)
    space = _shrink(choose, _space(choose, choose.randint(1, 3)), lambda s: batch * heads * math.prod(s) ** 2)
    key_space = space
    if choose.random() < 0.3:
        key_space = _shrink(
            choose, _space(choose, choose.randint(1, 3)), lambda s: batch * heads * math.prod(s + space)
        )
    tensors = [
        laid_out(choose, (batch, heads, depth, *space), dtype),
        laid_out(choose, (batch, heads, depth, *key_space), dtype),
        laid_out(choose, (batch, heads, value_depth, *key_space), dtype),
    ]
    options = {"normalization": choose.choice(["softmax", "scaling"]), "mask": _mask(choose, batch, key_space)}
    return Call(tensors, options)


def _external(choose: random.Random, dtype: torch.dtype) -> Call:
    batch, heads, depth, value_depth = _batch(choose), choose.randint(1, 4), _depth(choose), _depth(choose)
    slots = choose.choice([1, 2, 3, 5, 8, 16, 31, 64])
    space = _shrink(choose, _space(choose, choose.randint(1, 3)), lambda s: 4 * batch * heads * math.prod(s) * slots)
    tensors = [laid_out(choose, (batch, heads, depth, *space), dtype)]
    for d in (depth, value_depth):
        tensors.append(laid_out(choose, choose.choice([(slots, d), (heads, slots, d)]), dtype))
    if choose.random() < 0.3:
        tensors.append(laid_out(choose, choose.choice([(slots,), (heads, slots)]), dtype))
    options = {"normalization": choose.choice(["double", "softmax"]), "mask": _mask(choose, batch, space)}
    return Call(tensors, options)


def _explicit(choose: random.Random, dtype: torch.dtype) -> Call:
    batch, heads, depth = _batch(choose), choose.randint(1, 4), _depth(choose)
    axes = choose.choice([1, 2, 2, 2, 2, 3])
    space = _shrink(choose, _space(choose, axes), lambda s: heads * math.prod(s) ** 2 + batch * math.prod(s))
    # Mostly what the kernel takes: the separable ones, without a mask.
    decay = choose.choice([*DECAYS, *["gaussian", "manhattan"] * 8])
    tensors = [laid_out(choose, (batch, heads, depth, *space), dtype)]
    if decay in LEARNABLE:
        tensors.append((torch.rand(choose.choice([(), (heads,)])) + 0.3).to(dtype))
    mask = _mask(choose, batch, space) if choose.random() < 0.1 else None
    return Call(tensors, {"decay": decay, "offset": choose.choice([0.0, 1.0, 0.5]), "mask": mask})


def _run_local(q: Tensor, k: Tensor, v: Tensor, *tables: Tensor, **options: Any) -> Tensor:
    return foveal.local_attention(q, k, v, relative=list(tables) or None, **options)


def _run_external(x: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None, **options: Any) -> Tensor:
    return foveal.external_attention(x, key, value, key_bias=bias, **options)


def _run_explicit(v: Tensor, radius: Tensor | None = None, **options: Any) -> Tensor:
    return foveal.explicit_attention(v, radius=radius, **options)


# Every operation that may have a native backend.
EVERY = (
    Operation("local", local.BACKENDS, _local, _run_local),
    Operation("efficient", efficient.BACKENDS, _efficient, foveal.efficient_attention),
    Operation("external", external.BACKENDS, _external, _run_external),
    Operation("explicit", explicit.BACKENDS, _explicit, _run_explicit),
)
OPERATIONS = {row.name: row for row in EVERY if "native" in row.backends.names()}


def operations(backend: str) -> list[str]:
    """Those that have this backend."""
    return [name for name, row in OPERATIONS.items() if backend in row.backends.names()]


def evaluate(
    row: Operation, call: Call, dtype: torch.dtype, backend: str, learns: list[bool], seed: int
) -> list[Tensor]:
    """The result and the gradients of what learns, for the same upstream gradient in every type."""
    leaves = [x.detach() if x.dtype == dtype else x.detach().to(dtype) for x in call.tensors]
    leaves = [x.requires_grad_(learn) for x, learn in zip(leaves, learns, strict=True)]
    out = row.run(*leaves, backend=backend, **call.options)
    wanted = [x for x in leaves if x.requires_grad]
    if not wanted or not out.requires_grad:  # definitions of an empty batch may depend on nothing
        return [out, *map(torch.zeros_like, wanted)]
    choose = random.Random(seed)
    torch.manual_seed(seed)
    upstream = laid_out(choose, tuple(out.shape), call.tensors[0].dtype).to(dtype)
    grads = torch.autograd.grad(out, wanted, upstream, allow_unused=True)
    return [out.detach(), *(torch.zeros_like(x) if g is None else g for g, x in zip(grads, wanted, strict=True))]


def far(got: Tensor, exact: Tensor) -> float:
    """The largest difference; NaN counts as infinitely far."""
    if got.shape != exact.shape:
        return math.inf
    return (got.double() - exact).abs().nan_to_num(math.inf).max().item() if exact.numel() else 0.0


def check(operation: str, case: int, backend: str = "native") -> None:
    """Raises AssertionError where the kernel is wrong, Refused where it does not take the call."""
    row = OPERATIONS[operation]
    choose = random.Random(f"{operation} {case}")
    torch.manual_seed(case)
    dtype = choose.choice(TYPES[backend])
    call = row.draw(choose, dtype)
    learns = [choose.random() < 0.8 for _ in call.tensors]
    threads = choose.randint(1, 3)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got = evaluate(row, call, dtype, backend, learns, case)
    except foveal.BackendError as error:
        raise Refused(str(error)) from error
    finally:
        torch.set_num_threads(before)
    exact = evaluate(row, call, torch.float64, "reference", learns, case)
    terms = 64 * torch.finfo(torch.float32).eps * _largest_term(call)
    plain = evaluate(row, call, dtype, "reference", learns, case)
    for place, (g, e, p) in enumerate(zip(got, exact, plain, strict=True)):
        assert g.dtype == dtype, f"{told(row, call, case)}: result {place} is {g.dtype}."
        largest = e.abs().max().item() if e.numel() else 0.0
        allowed = 2 * far(p, e) + FREE[dtype] * torch.finfo(dtype).eps * largest + (terms if place else 1e-30)
        error = far(g, e)
        by = "" if backend == "native" else f" --backend {backend}"
        assert error <= allowed, (
            f"{told(row, call, case)}: {'result' if place == 0 else f'gradient {place}'} errs by {error:.3g}, "
            f"allowed is {allowed:.3g}. Repeat with: python {SCRIPT}{by} --operation {operation} --case {case}"
        )


def _largest_term(call: Call) -> float:
    """About the largest term of a gradient, for an upstream gradient of ones: depth times the square of the inputs."""
    square = max((x.double().square().mean().item() for x in call.tensors if x.numel()), default=0.0)
    return square * max(max(x.shape[1:3]) for x in call.tensors if x.dim() > 2)


def told(row: Operation, call: Call, case: int) -> str:
    """The call in words."""
    maps = " ".join(f"{tuple(x.shape)} by {x.stride()}" for x in call.tensors)
    options = {k: "given" if isinstance(v, Tensor) else v for k, v in call.options.items()}
    return f"{row.name} {case}: {call.tensors[0].dtype} {maps} {options}"


def cases(count: int, names: list[str] | None = None) -> list[tuple[str, int]]:
    """The first cases of every operation, in turns."""
    names = names or list(OPERATIONS)
    return [(names[i % len(names)], i // len(names)) for i in range(count)] if names else []


def main() -> int:
    """Runs what the command line asks for; the status is 1 where a kernel is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000, help="how many, shared out among the operations")
    parser.add_argument("--operation", choices=list(OPERATIONS), help="this operation alone")
    parser.add_argument("--case", type=int, help="this case alone")
    parser.add_argument("--backend", choices=list(TYPES), default="native", help="triton runs on a GPU")
    asked = parser.parse_args()
    from rich.progress import track

    where = str(foveal.kernels.cpu.instruction_set())
    if asked.backend == "triton":
        where = "cpu" if INTERPRETED else "cuda"
        if where == "cuda" and not torch.cuda.is_available():
            sys.stderr.write("fuzz: there is no NVIDIA GPU that torch can use; set TRITON_INTERPRET=1 to do without.\n")
            return 2
        torch.set_default_device(where)

    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    names = [asked.operation] if asked.operation else operations(asked.backend)
    wanted = cases(asked.cases, names) if asked.case is None else [(name, asked.case) for name in names]
    wrong = refused = 0
    for operation, case in track(wanted, f"fuzz on {where}"):
        try:
            check(operation, case, asked.backend)
        except Refused as error:
            refused += 1
            if asked.case is not None:
                sys.stdout.write(f"{error}\n")
        except AssertionError as error:
            wrong += 1
            sys.stderr.write(f"{error}\n")
    sys.stdout.write(f"{len(wanted)} cases, {wrong} wrong, {refused} not taken\n")
    return 1 if wrong or not wanted or refused == len(wanted) else 0


if __name__ == "__main__":
    sys.exit(main())
