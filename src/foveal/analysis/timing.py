"""Time of several calls, measured in turns so that whatever else the machine does falls on all of them alike.

One round takes one sample of every call, starting with another one each round. A sample repeats its call until it lasts
about two milliseconds. Ratios are taken within a round and only then summarised, so slow drift cancels.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from statistics import median

import torch

from foveal.errors import OptionError

SHORTEST_SAMPLE_S = 2e-3


@dataclass(frozen=True)
class Timing:
    """Milliseconds a call (median and quartiles over rounds) and the ratio to the first call of the comparison."""

    median: float
    q1: float
    q3: float
    ratio: float
    ratio_q1: float
    ratio_q3: float
    rounds: int
    repeats: int


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 30,
    warmup: int = 1,
    seconds: float = 5.0,
    least: int = 0,
) -> dict[str, Timing]:
    """Time every call in turns.

    Args:
        calls: what to time, by name; ratios are to the first.
        rounds: samples of each at most.
        warmup: calls of each before anything is timed.
        seconds: no round starts after this long, warming up and sizing included; one sample of each is always taken.
        least: rounds that are made however long they take.

    Raises:
        OptionError: nothing to time, or a bound that is not positive.
    """
    _check(calls, rounds, warmup, seconds)
    names = list(calls)
    samples: dict[str, list[float]] = {name: [] for name in names}
    with _no_collection():
        started = time.perf_counter()
        sized = {name: _sized(call, warmup) for name, call in calls.items()}
        repeats = {name: count for name, (count, _) in sized.items()}
        for turn in range(rounds):
            if turn >= least and time.perf_counter() - started > seconds:
                break
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                samples[name].append(_sample(calls[name], repeats[name]))
    if not samples[names[0]]:
        samples = {name: [once] for name, (_, once) in sized.items()}
    return {name: _summary(samples[name], samples[names[0]], repeats[name]) for name in names}


def _check(calls: Mapping[str, Callable[[], object]], rounds: int, warmup: int, seconds: float) -> None:
    if not calls:
        raise OptionError("interleaved: there is nothing to time. Give at least one call by name.")
    if rounds < 1 or warmup < 0 or not seconds > 0:
        raise OptionError(
            f"interleaved: rounds must be at least 1, warmup at least 0 and seconds positive, "
            f"got rounds={rounds}, warmup={warmup}, seconds={seconds}."
        )


def _sized(call: Callable[[], object], warmup: int) -> tuple[int, float]:
    """How often a call has to be repeated to fill a sample, and the milliseconds that one call took."""
    for _ in range(warmup):
        call()
    once = _sample(call, 1)
    if once < 10 * SHORTEST_SAMPLE_S * 1e3:
        once = min(once, _sample(call, 1))
    return max(1, ceil(SHORTEST_SAMPLE_S * 1e3 / max(once, 1e-6))), once


def _sample(call: Callable[[], object], repeats: int) -> float:
    """Milliseconds a call."""
    _synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    _synchronize()
    return (time.perf_counter() - started) * 1e3 / repeats


def _synchronize() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _summary(samples: list[float], first: list[float], repeats: int) -> Timing:
    ratios = [sample / other for sample, other in zip(samples, first, strict=True)]
    q1, q3 = quartiles(samples)
    ratio_q1, ratio_q3 = quartiles(ratios)
    return Timing(median(samples), q1, q3, median(ratios), ratio_q1, ratio_q3, len(samples), repeats)


def quartiles(values: list[float]) -> tuple[float, float]:
    """The first and third quartile, interpolated between neighbours; the value itself where there is one."""
    ordered = sorted(values)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    return at(0.25), at(0.75)


@contextmanager
def _no_collection() -> Iterator[None]:
    """A garbage collection inside a sample would be charged to whichever call it met."""
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
