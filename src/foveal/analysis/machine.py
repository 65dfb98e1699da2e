"""How fast this machine copies and multiplies, measured: the floor that no evaluation goes below."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil

import torch

_SIDES = (256, 512, 1024)


@dataclass(frozen=True)
class Machine:
    """Bytes and multiply-accumulates a second, with the threads that are set.

    ``copied_bytes`` is the size of the copy that the bandwidth was measured on: as large as the work, since what
    lies in cache is faster than memory.
    """

    bytes_per_second: float
    macs_per_second: float
    copied_bytes: int

    def floor_ms(self, moved: int, macs: int) -> float:
        """Milliseconds that moving so many bytes or so many multiply-accumulates take at least."""
        return 1e3 * max(moved / self.bytes_per_second, macs / self.macs_per_second)

    def bound(self, moved: int, macs: int) -> str:
        """Which of the two it is."""
        return "products" if macs / self.macs_per_second > moved / self.bytes_per_second else "memory"


def measure_machine(work_bytes: int, *, device: torch.device | str = "cpu", seconds: float = 1.0) -> Machine:
    """Time a copy of half of ``work_bytes`` into as much, and products of square float32 matrices, and a convolution.

    Rates are those of the fastest sample, since a floor must not be too high.
    """
    count = max(work_bytes // 8, 1024)
    source, target = (torch.ones(count, device=device) for _ in range(2))
    with torch.inference_mode():
        copied = fastest(lambda: target.copy_(source), seconds / 4)
        rates = []
        for side in _SIDES:
            a, b = (torch.ones(side, side, device=device) for _ in range(2))
            rates.append(side**3 / fastest(partial(torch.mm, a, b), seconds / 6))
        # On some processors convolutions come closer to what the units can do.
        x, weight = torch.ones(1, 256, 28, 28, device=device), torch.ones(256, 256, 3, 3, device=device)
        macs = x.numel() * weight[0].numel()
        rates.append(macs / fastest(partial(torch.conv2d, x, weight, padding=1), seconds / 6))
    return Machine(8 * count / copied, max(rates), 8 * count)


def fastest(call: Callable[[], object], seconds: float, *, least: int = 5) -> float:
    """Seconds that a call took at best; ``least`` samples in any case, each of half a millisecond or one call."""
    call()
    repeats = max(1, ceil(5e-4 / max(_sample(call, 1), 1e-7)))
    samples, started = [_sample(call, repeats) for _ in range(least)], time.perf_counter()
    while time.perf_counter() - started < seconds:
        samples.append(_sample(call, repeats))
    return min(samples)


def _sample(call: Callable[[], object], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / repeats
