"""Where the wall time of training steps goes: forward, backward, optimiser, data, and all else that the loop does."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil
from pathlib import Path
from statistics import median

from foveal.analysis.timing import quartiles
from foveal.data import load_options
from foveal.errors import OptionError
from foveal.tasks.classifying import KIND
from foveal.tasks.clock import Phase
from foveal.tasks.loop import Watch, fit
from foveal.tasks.recipe import Recipe
from foveal.tasks.train import plan_of, telling

WORK = ("forward", "backward", "optimizer")
OF_A_STEP = ("data", *WORK, "average", "rest")
WARM = 5  # steps before the first that counts
BLOCKS = 10  # of steps, for the spread


@dataclass(frozen=True)
class Share:
    """One phase: milliseconds a step, and its share of the wall time of all counted steps.

    Quartiles are over ten blocks of consecutive steps.
    """

    phase: str
    ms: float
    share: float
    share_q1: float
    share_q3: float


@dataclass(frozen=True)
class StepShares:
    """Where the time of one training went."""

    model: str
    data: str
    size: int
    batch: int
    workers: int
    steps: int
    step_ms: float
    phases: tuple[Share, ...]
    outside: Share
    """All but forward, backward and optimiser."""
    evaluate_seconds: float
    checkpoint_seconds: float
    """Over the whole run; both lie between steps."""


class Marks:
    """A clock that keeps when each phase began."""

    def __init__(self) -> None:
        self.marks: list[tuple[str, float]] = []

    def begin(self, phase: Phase) -> None:
        self.marks.append((phase, time.perf_counter()))

    def taken(self) -> list[tuple[str, float]]:
        """Each phase with its seconds, in order; the last is left out, as nobody said that it ended."""
        return [(phase, until - since) for (phase, since), (_, until) in pairwise(self.marks)]


def step_shares(recipe: Recipe, steps: int, *, watch: Callable[[Recipe], Watch] | None = None) -> StepShares:
    """Train a recipe for so many steps in a temporary folder, as ``train`` does, and see where the time goes.

    Args:
        recipe: what to train; its epochs do not count.
        steps: that count, after ``WARM`` that do not.
        watch: makes what is told all that ``train`` tells, for the recipe with as many epochs as that takes.

    Raises:
        OptionError: there are fewer than 20 steps, or the recipe does not fit its data.
    """
    if steps < 2 * BLOCKS:
        raise OptionError(f"bench training: --steps must be at least {2 * BLOCKS}, got {steps}. Use 200, say.")
    data = load_options(recipe.data)
    epochs = ceil((steps + WARM) / max(1, len(data.train) // recipe.batch_size))
    recipe = replace(recipe, epochs=epochs)
    task = KIND.task(recipe, data)
    marks = Marks()
    with tempfile.TemporaryDirectory(prefix="foveal-steps-") as folder:
        told = None if watch is None else telling(watch(recipe), task, recipe)
        fit(task, plan_of(recipe), Path(folder), watch=told, clock=marks)
    taken = marks.taken()
    each = steps_of(taken)[WARM : WARM + steps]
    phases, outside = shares(each)
    between = {name: sum(took for phase, took in taken if phase == name) for name in ("evaluate", "checkpoint")}
    workers = task.reader.workers if data.train.decodes else 0
    return StepShares(
        recipe.model.name, data.name, data.size, recipe.batch_size, workers, len(each),
        1e3 * median(sum(step.values()) for step in each), phases, outside, between["evaluate"], between["checkpoint"],
    )  # fmt: skip


def steps_of(taken: Sequence[tuple[str, float]]) -> list[dict[str, float]]:
    """The phases of each step by name, those that took no step left out.

    A step begins with its data. Checkpoints and evaluation lie between steps, and so does a look for data at the end of
    an epoch that finds none.
    """
    found: list[dict[str, float]] = []
    for phase, took in taken:
        if phase == "data":
            found.append({})
        if found and phase in OF_A_STEP:
            found[-1][phase] = found[-1].get(phase, 0.0) + took
    return [step for step in found if "forward" in step]


def shares(steps: Sequence[Mapping[str, float]]) -> tuple[tuple[Share, ...], Share]:
    """A record a phase that occurs, and one for all outside ``WORK``."""
    names = [name for name in OF_A_STEP if any(name in step for step in steps)]
    return tuple(_share(name, [name], steps) for name in names), _share(
        "outside", [name for name in names if name not in WORK], steps
    )


def _share(called: str, names: Sequence[str], steps: Sequence[Mapping[str, float]]) -> Share:
    own = [sum(step.get(name, 0.0) for name in names) for step in steps]
    all_ = [sum(step.values()) for step in steps]
    ends = [len(steps) * n // BLOCKS for n in range(BLOCKS + 1)]
    blocks = [sum(own[a:b]) / sum(all_[a:b]) for a, b in pairwise(ends)]
    return Share(called, 1e3 * sum(own) / len(own), sum(own) / sum(all_), *quartiles(blocks))
