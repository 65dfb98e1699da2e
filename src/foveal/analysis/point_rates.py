"""What work on large clouds takes: sampling, neighbours, attention and whole networks, in time and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from foveal.analysis.memory import peak_memory
from foveal.errors import OptionError

ROUNDS = 3
FEWEST = 512  # points that PCT samples


@dataclass(frozen=True)
class CloudWork:
    """One piece of work.

    Attributes:
        name: in words.
        seconds: median over rounds.
        peak_bytes: of tensors, above what was there before.
        pairs_bytes: what one float32 for each pair that the work looks at takes.
    """

    name: str
    seconds: float
    peak_bytes: int
    pairs_bytes: int


def cloud_work(
    points: int, *, neighbours: int = 32, device: str = "cpu", watch: Callable[[object], None] | None = None
) -> list[CloudWork]:
    """Measure one cloud of so many points.

    Raises:
        OptionError: there are fewer points than PCT samples, or than neighbours.
    """
    if points < max(FEWEST, neighbours):
        raise OptionError(f"bench points: --points must be at least {max(FEWEST, neighbours)}, got {points}.")
    cloud = torch.randn(2, 3, points, generator=torch.Generator().manual_seed(0)).to(device)
    found = []
    for name, count, pairs, run in _pieces(cloud, neighbours):
        if watch is not None:
            watch(name)
        with _without_gradients(name):
            peak, seconds = peak_memory(run, device=device), [_seconds(run, device) for _ in range(ROUNDS)]
        found.append(CloudWork(name, median(seconds), peak, 4 * count * pairs))
    return found


PIECES = 6


def _pieces(clouds: Tensor, near: int) -> Iterator[tuple[str, int, int, Callable[[], object]]]:
    """Name, clouds, pairs of each, and the work."""
    from foveal import models
    from foveal.models.points import farthest_points, nearest_points

    one, n = clouds[:1], clouds.shape[2]
    torch.manual_seed(0)
    pct, spct, training = (make().to(clouds.device) for make in (models.pct, models.spct, models.pct))
    pct.eval(), spct.eval()
    chosen = one[:, :, :FEWEST]
    yield f"farthest {FEWEST} points", 1, FEWEST * n, lambda: farthest_points(one, FEWEST)
    yield f"{near} neighbours of {FEWEST} points", 1, FEWEST * n, lambda: nearest_points(one, chosen, near)
    yield f"{near} neighbours of every point", 1, n * n, lambda: nearest_points(one, one, near)
    yield "PCT", 1, FEWEST * n, lambda: pct(one)
    yield "SPCT, four layers over all points", 1, n * n, lambda: spct(one)
    yield "PCT, a training step of two clouds", 2, FEWEST * n, lambda: training(clouds).sum().backward()


def _without_gradients(name: str) -> AbstractContextManager[Any]:
    return torch.set_grad_enabled("training" in name)


def _seconds(run: Callable[[], object], device: str) -> float:
    queued = torch.device(device).type == "cuda"
    if queued:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if queued:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
