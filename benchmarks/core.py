"""Ratios of foveal's exact evaluations to the definitions and to the published formulations, in one run.

Every pair is first checked to agree, then timed in turns; a ratio is the median over rounds of (theirs / ours), with
its quartiles. Run by ``make bench-core``; ``--table FILE`` also writes a Markdown table.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from formulations import EfficientAsPublished, ExternalAsPublished
from torch import Tensor, nn

import foveal
from foveal.analysis import interleaved, peak_memory

Call = Callable[[], Any]
SECONDS = 6.0
RECORDS: list[dict[str, Any]] = []


def pair(name: str, ours: Call, theirs: Call, goal: str = "") -> None:
    """Check that both give the same, then time them in turns and print the ratio."""
    torch.testing.assert_close(ours(), theirs(), rtol=2e-4, atol=2e-4)
    times = interleaved({"ours": ours, "theirs": theirs}, rounds=25, seconds=SECONDS)
    told = times["theirs"]
    record = {
        "work": name,
        "ratio": told.ratio,
        "q1": told.ratio_q1,
        "q3": told.ratio_q3,
        "rounds": told.rounds,
        "goal": goal,
    }
    RECORDS.append(record)
    print(f"{name:74} {told.ratio:7.1f}x  ({told.ratio_q1:.1f} to {told.ratio_q3:.1f})  {goal}", flush=True)


def memory(name: str, ours: Call, theirs: Call, unit: int, result: int, goal: str) -> None:
    """Peak memory beyond the result, in multiples of one tensor."""
    mine, other = ((peak_memory(call) - result) / unit for call in (ours, theirs))
    RECORDS.append({"work": name, "ours": mine, "theirs": other, "goal": goal})
    print(f"{name:74} {mine:7.1f}   against {other:.0f} unfolded  {goal}", flush=True)


def local() -> None:
    for size, channels in [(56, 64), (28, 128), (14, 256), (7, 512)]:
        q, k, v = (torch.randn(8, 8, channels // 8, size, size) for _ in range(3))
        for backend_free, name in [(False, ""), (True, ", relative")]:
            tables = [torch.randn(8, 7, channels // 16) for _ in range(2)] if backend_free else None

            def run(backend: str | None = None, tables: Any = tables, maps: Any = (q, k, v)) -> Tensor:
                with torch.no_grad():
                    return foveal.local_attention(*maps, kernel_size=7, relative=tables, backend=backend)

            goal = "goal 4" if size == 56 and not backend_free else ""
            pair(
                f"local_attention {size}x{size}, 8 heads of {channels // 8}{name}: forward against unfolding",
                run,
                lambda run=run: run("reference"),
                goal,
            )
    q, k, v = (torch.randn(8, 8, 8, 56, 56, requires_grad=True) for _ in range(3))
    upstream = torch.randn_like(v)

    def train(backend: str | None = None) -> Any:
        return torch.autograd.grad(foveal.local_attention(q, k, v, kernel_size=7, backend=backend), [q, k, v], upstream)

    pair("the same 56x56, 8 heads of 8: forward + backward", train, lambda: train("reference"))
    memory(
        "the same: peak memory of forward + backward, in multiples of q",
        train,
        lambda: train("reference"),
        q.nbytes,
        4 * q.nbytes,
        "goal at most 8",
    )


def layer_pair(name: str, layer: nn.Module, other: nn.Module, x: Tensor) -> None:
    """Inference, then a training step of two modules that share their weights."""
    layer.eval()
    other.eval()

    def infer(module: nn.Module) -> Tensor:
        with torch.no_grad():
            return module(x)

    pair(f"{name}: inference", lambda: infer(layer), lambda: infer(other))
    x = x.clone().requires_grad_()

    def step(module: nn.Module) -> Tensor:
        leaves = [x, *module.parameters()]
        return torch.autograd.grad(module(x).sum(), leaves, allow_unused=True)[0]

    pair(f"{name}: forward + backward", lambda: step(layer), lambda: step(other))


def layers() -> None:
    for channels, size, batch, keys in [(256, 56, 4, 64), (64, 256, 1, 32)]:
        layer = foveal.EfficientAttention(channels, key_channels=keys)
        x = torch.randn(batch, channels, size, size)
        name = f"EfficientAttention {channels} channels, d_k {keys}, {batch}x{size}x{size}, as published"
        layer_pair(name, layer, EfficientAsPublished(layer), x)
    unit = foveal.ExternalAttention(512)
    layer_pair(
        "ExternalAttention 512 channels, 64 slots, 2x65x65, as published",
        unit,
        ExternalAsPublished(unit),
        torch.randn(2, 512, 65, 65),
    )


def explicit() -> None:
    for size, channels, decay in [(28, 16, "gaussian"), (56, 24, "gaussian"), (28, 16, "linear"), (56, 24, "linear")]:
        v = torch.randn(8, 1, channels, size, size)
        radius = torch.tensor(0.75) if decay == "gaussian" else None

        def run(backend: str | None = None, v: Tensor = v, radius: Any = radius, decay: Any = decay) -> Tensor:
            with torch.no_grad():
                return foveal.explicit_attention(v, decay=decay, radius=radius, backend=backend)

        name = f"explicit_attention {decay}, 8x{channels}x{size}x{size}: against the dense definition"
        pair(name, run, lambda run=run: run("reference"))


def table(environment: str) -> str:
    """The records as Markdown."""
    lines = [
        "# Exact evaluations against definitions and published formulations",
        "",
        f"Printed by `make bench-core` on {environment}.",
        "A ratio is time of the other side over time of foveal's: the median of rounds in turns (quartiles), after",
        "both were checked to agree.",
        "",
        "| work | ratio | goal |",
        "|---|---|---|",
    ]
    for r in RECORDS:
        told = (
            f"{r['ratio']:.1f} times ({r['q1']:.1f} to {r['q3']:.1f})"
            if "ratio" in r
            else f"{r['ours']:.1f} against {r['theirs']:.0f} unfolded"
        )
        lines.append(f"| {r['work']} | {told} | {r['goal']} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, help="also write the table to this Markdown file")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    capability = torch.backends.cpu.get_cpu_capability()
    environment = f"torch {torch.__version__}, {torch.get_num_threads()} threads, {capability}"
    print(f"{environment}\ntheirs / ours, in time: median of rounds in turns (quartiles)\n")
    local()
    layers()
    explicit()
    if arguments.table:
        arguments.table.parent.mkdir(exist_ok=True)
        temporary = arguments.table.with_suffix(".tmp")
        temporary.write_text(table(environment))
        os.replace(temporary, arguments.table)


if __name__ == "__main__":
    main()
