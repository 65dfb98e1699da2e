"""From which map on one mechanism costs less than another: by formula, and by predicted time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from foveal.analysis.calibration_layers import by_mechanism
from foveal.analysis.operators import operators
from foveal.analysis.prediction import Speeds
from foveal.layers.base import AttentionLayer

LARGEST = 512
# What is linear in the positions against what is quadratic, and attention against the convolution it replaces.
PAIRS = (
    ("efficient", "nonlocal"), ("external", "nonlocal"), ("local", "nonlocal"), ("explicit", "nonlocal"),
    ("local", "conv3x3"), ("explicit", "conv3x3"),
)  # fmt: skip


@dataclass(frozen=True)
class Crossover:
    """The side of the square map from which on ``mechanism`` costs less than ``against``, up to ``LARGEST``.

    1 is every map; None is none. ``by_time`` is None without speeds, too.
    """

    mechanism: str
    against: str
    channels: int
    by_macs: int | None
    by_time: int | None


def crossovers(
    channels: Mapping[str, Iterable[int]], speeds: Speeds | None = None, *, device: torch.device | str = "cpu"
) -> list[Crossover]:
    """Every pair of the table, at the widths that ``channels`` has for what is compared with.

    Args:
        channels: by mechanism of the right side of a pair, ``conv3x3`` among them.
        speeds: of this machine; without them there are formulas alone.
        device: that the speeds are of.
    """

    @cache
    def time(name: str, width: int, side: int) -> float:
        assert speeds is not None
        return speeds.predict(operators(by_mechanism(name, width, side), (1, width, side, side), device=device).rows)

    def started(cost: Callable[[str, int, int], float], ours: str, theirs: str, width: int) -> int | None:
        return first_side(lambda side: cost(ours, width, side) < cost(theirs, width, side))

    return [
        Crossover(
            ours, theirs, width, started(macs, ours, theirs, width),
            None if speeds is None else started(time, ours, theirs, width),
        )
        for ours, theirs in PAIRS
        for width in sorted(set(channels.get(theirs, ())))
    ]  # fmt: skip


@cache
def macs(name: str, channels: int, side: int) -> int:
    """Multiply-accumulates by formula."""
    layer = by_mechanism(name, channels, side)
    if isinstance(layer, AttentionLayer):
        return layer.macs((side, side))
    assert isinstance(layer, nn.Conv2d)
    return side * side * layer.weight.numel()


def first_side(cheaper: Callable[[int], bool], largest: int = LARGEST) -> int | None:
    """The least side from which on ``cheaper`` holds at all powers of two up to ``largest``, found by halving.

    Between the last power at which it does not hold and the next, it is taken to change once.
    """
    low, side = 0, largest
    while side >= 1:
        if not cheaper(side):
            low = side
            break
        side //= 2
    if low == largest:
        return None
    high = max(2 * low, 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cheaper(middle) else (middle, high)
    return high
