"""foveal's layers on CPUs against convolutions, published formulations, other libraries and the definitions.

Run by ``make bench-cpu``, which writes docs/benchmarks.md and benchmarks/results/cpu.json. ``--only GROUP`` runs one
group and writes nothing.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from table import Table, agree, environment
from timm.layers.halo_attn import HaloAttn
from torch import Tensor, nn

import foveal
from foveal.analysis import interleaved, peak_memory
from foveal.analysis.formulations import EfficientAsPublished, ExternalAsPublished
from foveal.kernels.cpu import instruction_set

ROOT = Path(__file__).parents[1]
STAGES = [(56, 64), (28, 128), (14, 256), (7, 512)]
LAST = torch.channels_last
Step = Callable[[], Any]


def infer(module: nn.Module, x: Tensor) -> Tensor:
    """Forward for its result alone."""
    with torch.inference_mode():
        return module(x)


def gradients(module: nn.Module, x: Tensor, upstream: Tensor) -> list[Tensor]:
    """Forward and backward: gradients of the input and of every parameter."""
    made = torch.autograd.grad(module(x), [x, *module.parameters()], upstream, allow_unused=True)
    return [g for g in made if g is not None]


def steps(module: nn.Module, x: Tensor) -> tuple[Step, Step]:
    """Forward, and forward with backward, of one module on this map in its own memory format."""
    leaf = x.detach().clone().requires_grad_()
    upstream = torch.randn_like(infer(module, x))
    return lambda: infer(module, x), lambda: gradients(module, leaf, upstream)


def in_better_format(module: nn.Module, x: Tensor, which: int) -> Step:
    """``steps(...)[which]`` in the memory format that this module runs faster in."""
    found = {
        name: steps(module, x.to(memory_format=f))[which]
        for name, f in [("first", torch.contiguous_format), ("last", LAST)]
    }
    times = interleaved(found, rounds=5, seconds=2.0)
    return found[min(found, key=lambda name: times[name].median)]


def definition(layer: nn.Module) -> nn.Module:
    """The same layer, evaluated as the definition says."""
    other = copy.deepcopy(layer)
    for module in other.modules():
        if hasattr(module, "backend"):
            module.backend = "reference"
    return other


def check_layer(work: str, layer: nn.Module, other: nn.Module, x: Tensor) -> None:
    """Results and gradients of both must agree."""
    agree(work, infer(layer, x), infer(other, x))
    leaf = x.detach().clone().requires_grad_()
    upstream = torch.randn_like(x)
    agree(f"{work}, gradients", gradients(layer, leaf, upstream), gradients(other, leaf, upstream))


def local_layer(channels: int) -> nn.Module:
    return foveal.LocalAttention(channels, channels, kernel_size=7, heads=8)


def local_against_unfolding(table: Table) -> None:
    """The operation alone against the copy of every window."""
    for size, channels in STAGES:
        maps = [torch.randn(8, 8, channels // 8, size, size, requires_grad=True) for _ in range(3)]
        tables = [torch.randn(8, 7, channels // 16, requires_grad=True) for _ in range(2)]
        upstream = torch.randn_like(maps[0])

        def run(relative: Sequence[Tensor], backend: str | None = None, maps: Any = maps) -> Tensor:
            return foveal.local_attention(*maps, kernel_size=7, relative=list(relative) or None, backend=backend)

        def forward(relative: Sequence[Tensor], backend: str | None = None, run: Any = run) -> Tensor:
            with torch.inference_mode():
                return run(relative, backend)

        def train(
            relative: Sequence[Tensor],
            backend: str | None = None,
            run: Any = run,
            maps: Any = maps,
            upstream: Any = upstream,
        ) -> Any:
            return torch.autograd.grad(run(relative, backend), [*maps, *relative], upstream)

        work = f"window 7, {size}², 8 heads of {channels // 8}"
        for relative, name in [([], ""), (tables, ", relative")]:
            agree(work, train(relative), train(relative, "reference"))
            goal = 100.0 if size == 56 and not relative else None
            table.faster(
                f"{work}{name}: forward",
                lambda f=forward, r=relative: f(r),
                lambda f=forward, r=relative: f(r, "reference"),
                least=goal,
            )
        table.faster(f"{work}: forward + backward", lambda f=train: f([]), lambda f=train: f([], "reference"))


def local_against_halo(table: Table) -> None:
    """timm's HaloAttn: blocks of 7 with a halo of 3, so every query sees at least what a window of 7 shows."""
    for (size, channels), goal in zip(STAGES[:2], (40.0, 12.0), strict=True):
        x = torch.randn(8, channels, size, size)
        ours = local_layer(channels)
        halo = HaloAttn(channels, num_heads=8, block_size=7, halo_size=3)
        work = f"{size}², {channels} channels"
        check_layer(work, ours, definition(ours), x)
        for which, name in enumerate(("forward", "forward + backward")):
            sides = [in_better_format(module, x, which) for module in (ours, halo)]
            table.faster(f"{work}: {name}", *sides, least=None if which else goal)


def local_against_convolution(table: Table) -> None:
    """The layer against the 3x3 convolution of the same width; ResNet-50's stages, channels last, and their sum."""
    pairs = []
    for size, channels in STAGES:
        x = torch.randn(8, channels, size, size).to(memory_format=LAST)
        ours = local_layer(channels)
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(memory_format=LAST)
        work = f"{size}², {channels} channels"
        check_layer(work, ours, definition(ours), x)
        pairs.append((work, steps(ours, x), steps(conv, x)))
    for which, (name, goal) in enumerate([("forward", 0.75), ("forward + backward", 0.9)]):
        for work, ours, conv in pairs:
            table.share(f"{work}: {name}", ours[which], conv[which], rounds=60)
        together = [[side[which] for side in sides] for sides in zip(*(pair[1:] for pair in pairs), strict=True)]
        table.share(f"the four stages together: {name}", *(_all(calls) for calls in together), most=goal, rounds=60)


def _all(calls: Sequence[Step]) -> Step:
    def run() -> None:
        for call in calls:
            call()

    return run


def local_against_bound(table: Table) -> None:
    """Time of the layer's multiply-adds, were they as fast as those of a wide 1x1 convolution, over its time."""
    wide = nn.Conv2d(512, 512, 1, bias=False).to(memory_format=LAST)
    plain = torch.randn(8, 512, 28, 28).to(memory_format=LAST)
    wide_macs = 8 * 28 * 28 * 512 * 512
    for size, channels in STAGES:
        x = torch.randn(8, channels, size, size).to(memory_format=LAST)
        layer = local_layer(channels)
        q, k, v = (torch.randn(8, size, size, 8, channels // 8).permute(0, 3, 4, 1, 2) for _ in range(3))
        tables = list(layer.relative)

        def mix(q: Tensor = q, k: Tensor = k, v: Tensor = v, tables: Any = tables) -> Tensor:
            with torch.inference_mode():
                return foveal.local_attention(q, k, v, kernel_size=7, relative=tables)

        # Projections; q.k and the weighted sum over the window; q.r once for every offset along each axis.
        attend = 8 * size * size * channels * (2 * 49 + 7)
        whole = attend + 8 * size * size * 3 * channels * channels
        for name, call, macs in [("layer", lambda m=layer, x=x: infer(m, x), whole), ("operation", mix, attend)]:
            told = interleaved({"unit": lambda: infer(wide, plain), "ours": call}, rounds=40, seconds=3.0)["ours"]
            ratios = [macs / wide_macs / value for value in (told.ratio_q3, told.ratio, told.ratio_q1)]
            table.add(f"{size}², {channels} channels: {name}, forward", ratios, "of the bound")


def resnet(table: Table) -> None:
    """ResNet-50 with every 3x3 convolution but the stem's replaced, against timm's; eager, channels last, 224²."""
    torch.manual_seed(0)
    theirs = timm.create_model("resnet50").to(memory_format=LAST)
    ours = timm.create_model("resnet50")
    foveal.replace_(ours, "layer*.*.conv2", foveal.LocalAttention.like(kernel_size=7, heads=8))
    ours = ours.to(memory_format=LAST)
    x = torch.randn(8, 3, 224, 224).to(memory_format=LAST)
    agree("ResNet-50", infer(ours.eval(), x[:1]), infer(definition(ours), x[:1]))
    theirs.eval()
    table.share("inference", lambda: infer(ours, x), lambda: infer(theirs, x), most=0.95, rounds=20, seconds=25.0)
    labels = torch.arange(8)

    def training(model: nn.Module) -> Step:
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

        def step() -> None:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), labels).backward()
            optimizer.step()

        return step

    table.share("training step, SGD", training(ours), training(theirs), most=1.0, rounds=15, seconds=60.0)


def _as_published(
    table: Table, work: str, layer: nn.Module, other: nn.Module, x: Tensor, goals: tuple[float, float]
) -> None:
    check_layer(work, layer.eval(), other.eval(), x)
    for which, name in enumerate(("forward", "forward + backward")):
        layer.train(bool(which)), other.train(bool(which))
        sides = [in_better_format(module, x, which) for module in (layer, other)]
        table.faster(f"{work}: {name}", *sides, least=goals[which], seconds=6.0)


def efficient(table: Table) -> None:
    """Against separate 1x1 convolutions and stored softmaxes."""
    for channels, keys, size, batch in [(256, 64, 56, 4), (64, 32, 256, 1)]:
        layer = foveal.EfficientAttention(channels, key_channels=keys)
        work = f"{channels} channels, d_k {keys}, {size}², batch {batch}"
        x = torch.randn(batch, channels, size, size)
        _as_published(table, work, layer, EfficientAsPublished(layer), x, (3.0, 2.5))


def external(table: Table) -> None:
    """Against separate convolutions and a stored map."""
    unit = foveal.ExternalAttention(512)
    x = torch.randn(2, 512, 65, 65)
    _as_published(table, "512 channels, 64 slots, 65², batch 2", unit, ExternalAsPublished(unit), x, (4.0, 5.0))


def explicit(table: Table) -> None:
    """The layer with a learnable radius against the same layer with the n x n matrix of the definition, batch 8."""
    for size, channels, goal in [(28, 16, 50.0), (56, 24, 250.0), (128, 64, 1000.0)]:
        layer = foveal.ExplicitAttention(channels)
        dense = definition(layer)
        x = torch.randn(8, channels, size, size)
        work = f"Gaussian, {size}², {channels} channels"
        few = {"rounds": 2, "warmup": 0, "seconds": 60.0} if size == 128 else {"seconds": 6.0}
        if size == 128:  # the definition's backward would need tens of gigabytes
            agree(work, infer(layer, x[:1]), infer(dense, x[:1]))
        else:
            check_layer(work, layer, dense, x)
        ours, theirs = steps(layer, x), steps(dense, x)
        table.faster(f"{work}: forward", ours[0], theirs[0], least=goal, **few)
        if size < 128:
            table.faster(f"{work}: forward + backward", ours[1], theirs[1], **few)
    for decay in ("manhattan", "linear"):
        layer = foveal.ExplicitAttention(24, decay=decay)
        dense, x = definition(layer), torch.randn(8, 24, 56, 56)
        check_layer(decay, layer, dense, x)
        table.faster(f"{decay.capitalize()}, 56², 24 channels: forward", steps(layer, x)[0], steps(dense, x)[0])


def growth(table: Table) -> None:
    """Slope of log time against log n, a map of 32 channels, batch 1."""
    sizes = [32, 64, 128, 256, 512]
    layers: list[tuple[str, nn.Module, float | None]] = [
        ("local, window 7", foveal.LocalAttention(32, 32, kernel_size=7, heads=4), 1.1),
        ("efficient, d_k 32", foveal.EfficientAttention(32, key_channels=32), 1.1),
        ("external, 64 slots", foveal.ExternalAttention(32), 1.1),
        ("explicit, Gaussian", foveal.ExplicitAttention(32), 1.35),
        ("explicit, Manhattan", foveal.ExplicitAttention(32, decay="manhattan"), 1.35),
        ("explicit, linear", foveal.ExplicitAttention(32, decay="linear"), None),
    ]
    for name, layer, goal in layers:
        layer.eval()
        small = torch.randn(1, 32, 32, 32)
        agree(name, infer(layer, small), infer(definition(layer), small))
        maps = [torch.randn(1, 32, size, size) for size in sizes]
        calls = {str(size): lambda x=x, m=layer: infer(m, x) for size, x in zip(sizes, maps, strict=True)}
        rounds = [interleaved(calls, rounds=1, warmup=int(first), seconds=60.0) for first in [True] + [False] * 4]
        times = [[told[str(size)].median for size in sizes] for told in rounds]
        table.add(f"{name}: from 32² to 512²", [_slope(sizes, t) for t in times], most=goal)
        table.add(f"{name}: from 128² to 512²", [_slope(sizes[2:], t[2:]) for t in times])


def _slope(sizes: Sequence[int], times: Sequence[float]) -> float:
    """Least squares through (log n, log time)."""
    n, t = ([math.log(value) for value in values] for values in ([size * size for size in sizes], times))
    n_mean, t_mean = sum(n) / len(n), sum(t) / len(t)
    return sum((a - n_mean) * (b - t_mean) for a, b in zip(n, t, strict=True)) / sum((a - n_mean) ** 2 for a in n)


def memory(table: Table) -> None:
    """Peak memory of the operation, forward + backward, beyond inputs, result and gradients, in multiples of q."""
    for size, channels in STAGES:
        q, k, v = (torch.randn(8, 8, channels // 8, size, size, requires_grad=True) for _ in range(3))
        tables = [torch.randn(8, 7, channels // 16, requires_grad=True) for _ in range(2)]
        upstream = torch.randn_like(v)
        leaves = [q, k, v, *tables]

        def train(leaves: Any = leaves, upstream: Tensor = upstream) -> Any:
            out = foveal.local_attention(*leaves[:3], kernel_size=7, relative=leaves[3:])
            return out, torch.autograd.grad(out, leaves, upstream)

        train()
        extra = peak_memory(train) - v.nbytes - sum(leaf.nbytes for leaf in leaves)
        table.add(f"local, window 7, relative, {size}², {channels} channels", [extra / q.nbytes], "times q", most=1.0)


GROUPS: dict[str, tuple[str, Callable[[Table], None]]] = {
    "unfolding": ("`local_attention` against unfolding, batch 8", local_against_unfolding),
    "halo": ("`LocalAttention` against timm's `HaloAttn`, block 7, halo 3, batch 8", local_against_halo),
    "convolution": (
        "`LocalAttention`, window 7, against `Conv2d` 3x3, channels last, batch 8",
        local_against_convolution,
    ),
    "bound": (
        "Local attention against its multiply-adds at the rate of a wide 1x1 convolution, batch 8",
        local_against_bound,
    ),
    "resnet": ("ResNet-50 with every 3x3 convolution replaced, against timm's, channels last, batch 8", resnet),
    "efficient": ("`EfficientAttention` against the published formulation", efficient),
    "external": ("`ExternalAttention` against the published formulation", external),
    "explicit": ("`ExplicitAttention`, learnable radius, against the dense definition, batch 8", explicit),
    "growth": ("Slope of log time against log n, 32 channels, batch 1, forward", growth),
    "memory": ("Memory of forward + backward beyond inputs, result and gradients, batch 8", memory),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", choices=GROUPS, metavar="GROUP", help=f"run one of {', '.join(GROUPS)}; write nothing"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (2)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    told = environment(instruction_set())
    print(", ".join(f"{name} {value}" for name, value in told.items()))
    table, started = Table(), time.perf_counter()
    for name, (title, run) in GROUPS.items():
        if arguments.only in (None, name):
            table.group = title
            print(f"\n{name}: {title} ({time.perf_counter() - started:.0f} s so far)", flush=True)
            run(table)
    missed = sum(row.reached is False for row in table.rows)
    print(f"\n{time.perf_counter() - started:.0f} s; goals missed: {missed}")
    if arguments.only is None:
        table.write(ROOT / "docs", ROOT / "benchmarks" / "results", "make bench-cpu", told)


if __name__ == "__main__":
    main()
