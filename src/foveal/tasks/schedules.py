"""The learning rate at any moment of a training: linear warm-up, then one of the papers' curves.

Papers: restarts at given epochs and a constant end are those of Tan et al., Explicitly Modeled Attention Maps for
Image Classification (2020); warm-up and one cosine those of Ramachandran et al. (2019), Bello et al. (2019) and of the
released code of Guo et al. (2021). Departures: the rate is taken anew for every step, not for every epoch.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from itertools import pairwise

from foveal.tasks.recipe import ScheduleOptions


def rate(options: ScheduleOptions, lr: float, epoch: float, epochs: float) -> float:
    """The learning rate at a moment.

    Args:
        options: the curve.
        lr: its highest rate.
        epoch: how many epochs are done, with the part of the present one.
        epochs: how many there are in all.
    """
    if epoch < options.warmup:
        return options.warmup_lr + (lr - options.warmup_lr) * epoch / options.warmup
    if epoch >= epochs - options.cooldown:
        epoch = epochs - options.cooldown
    return CURVES[options.name](options, lr, epoch, epochs)


def key_epochs(options: ScheduleOptions, epochs: float) -> list[float]:
    """The epochs at which a curve bends, and its ends: what is worth a line in a table."""
    start, end = options.warmup, epochs - options.cooldown
    bends = {"restarts": options.restarts, "step": options.steps}.get(options.name, ())
    quarters = [start + share * (end - start) for share in (0.25, 0.5, 0.75)] if not bends else []
    # Just before a bend is worth as much as the bend itself: that is where a cosine is at its lowest.
    before = [math.nextafter(bend, 0.0) for bend in bends]
    told = {0.0, start, end, float(epochs), *bends, *before, *quarters}
    return sorted(epoch for epoch in told if 0 <= epoch <= epochs)


def _cosine(options: ScheduleOptions, lr: float, epoch: float, epochs: float) -> float:
    return _half_wave(options, lr, _share(options, epoch, epochs))


def _restarts(options: ScheduleOptions, lr: float, epoch: float, epochs: float) -> float:
    end = max(epochs - options.cooldown, *options.restarts)
    tail = options.tail_lr is not None
    if options.tail_lr is not None and epoch >= options.restarts[-1]:
        return options.tail_lr
    ends = sorted({options.warmup, *options.restarts, *(() if tail else (end,))})
    cycles = list(pairwise(ends))
    first, last = cycles[min(bisect.bisect_right(ends, epoch) - 1, len(cycles) - 1)]
    return _half_wave(options, lr, (epoch - first) / (last - first))


def _step(options: ScheduleOptions, lr: float, epoch: float, epochs: float) -> float:
    falls = bisect.bisect_right(sorted(options.steps), epoch)
    return max(lr * math.pow(options.factor, falls), options.least_lr)


def _poly(options: ScheduleOptions, lr: float, epoch: float, epochs: float) -> float:
    left = 1 - _share(options, epoch, epochs)
    return options.least_lr + (lr - options.least_lr) * math.pow(left, options.power)


def _constant(options: ScheduleOptions, lr: float, epoch: float, epochs: float) -> float:
    return lr


CURVES: dict[str, Callable[[ScheduleOptions, float, float, float], float]] = {
    "cosine": _cosine,
    "restarts": _restarts,
    "step": _step,
    "poly": _poly,
    "constant": _constant,
}


def _share(options: ScheduleOptions, epoch: float, epochs: float) -> float:
    """How much of a falling curve is done."""
    start = 0.0 if options.overlap else options.warmup
    length = epochs - options.cooldown - start
    return min(max((epoch - start) / length, 0.0), 1.0) if length > 0 else 1.0


def _half_wave(options: ScheduleOptions, lr: float, share: float) -> float:
    return options.least_lr + (lr - options.least_lr) * 0.5 * (1 + math.cos(math.pi * share))
