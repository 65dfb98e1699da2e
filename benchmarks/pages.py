"""Where the time of local attention goes beside arithmetic: processor, system and page faults of the layer and of the
3x3 convolution, each alone.

    python benchmarks/pages.py
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import foveal

CALLS = 40


def meter(call: Callable[[], object]) -> str:
    """Milliseconds and faults a call, after two that warm up."""
    call(), call()
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(CALLS):
        call()
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    faults = (after.ru_minflt - before.ru_minflt) / CALLS
    wall, user, system = (1e3 * seconds / CALLS for seconds in (wall, user, system))
    return f"wall {wall:.2f} ms, processors {user:.2f}, system {system:.2f}, page faults {faults:.0f}"


def inference(module: nn.Module, x: Tensor) -> None:
    with torch.inference_mode():
        module(x)


def training(module: nn.Module, x: Tensor, upstream: Tensor) -> None:
    leaf = x.requires_grad_()
    module(leaf).backward(upstream)
    leaf.grad = None
    module.zero_grad()


def main() -> None:
    torch.set_num_threads(2)
    last = torch.channels_last
    for size, channels in [(56, 64), (56, 128), (28, 128), (14, 256)]:
        x, upstream = (torch.randn(8, channels, size, size).to(memory_format=last) for _ in range(2))
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(memory_format=last)
        for name, module in (("convolution", conv), ("local attention", foveal.LocalAttention(channels, channels))):
            told = {
                "inference": meter(lambda m=module, x=x: inference(m, x)),
                "training": meter(lambda m=module, x=x, g=upstream: training(m, x.detach(), g)),
            }
            for mode, line in told.items():
                print(f"{size}² x {channels}, {name}, {mode}: {line}", flush=True)


if __name__ == "__main__":
    main()
