"""Which recipes make sense: every number within its range, and nothing that contradicts something else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

from foveal.errors import OptionError
from foveal.tasks.idle_options import check_idle
from foveal.tasks.recipe import ScheduleOptions, Training


class Bounds(NamedTuple):
    """From ``least`` to ``most``; ``open_`` leaves out the least one, ``shut`` the largest."""

    least: float
    most: float = math.inf
    open_: bool = False
    shut: bool = False

    def hold(self, value: float) -> bool:
        """Whether a number lies within; NaN and infinity never do."""
        above = value > self.least if self.open_ else value >= self.least
        below = value < self.most if self.shut else value <= self.most
        return math.isfinite(value) and above and below

    @property
    def words(self) -> str:
        """As a sentence says it."""
        above = f"{'above' if self.open_ else 'at least'} {self.least:g}"
        if self.most == math.inf:
            return above
        return f"{above} and {'below' if self.shut else 'at most'} {self.most:g}"


AMOUNT = Bounds(0)
BOUNDS = {
    "epochs": Bounds(1, 100_000),
    "batch_size": Bounds(1, 10**7),
    "accumulate": Bounds(1, 10**6),
    "seed": Bounds(0, 2**31 - 1),
    "smoothing": Bounds(0, 1, shut=True),
    "drop_path": Bounds(0, 1, shut=True),
    "clip": Bounds(0, open_=True),
    "ema": Bounds(0, 1, open_=True, shut=True),
    "ema_start": AMOUNT,
    "optimizer.lr": Bounds(0, open_=True),
    "optimizer.decay": AMOUNT,
    "optimizer.momentum": Bounds(0, 1, shut=True),
    "optimizer.betas": Bounds(0, 1, shut=True),
    "optimizer.bias_lr": AMOUNT,
    "schedule.warmup": AMOUNT,
    "schedule.warmup_lr": AMOUNT,
    "schedule.least_lr": AMOUNT,
    "schedule.restarts": Bounds(0, open_=True),
    "schedule.tail_lr": AMOUNT,
    "schedule.steps": Bounds(0, open_=True),
    "schedule.factor": Bounds(0, 1, open_=True),
    "schedule.power": Bounds(0, open_=True),
    "schedule.cooldown": AMOUNT,
    "model.norm_momentum": Bounds(0, 1, open_=True),
    "data.size": Bounds(8, 4096),
    "data.crop_share": Bounds(0, 1, open_=True),
    "data.workers": Bounds(0, 1024),
}


def check(recipe: Training, asker: str = "train") -> None:
    """Raise where a recipe cannot be what anyone means; what the data do to an image is checked with the data.

    Raises:
        OptionError: a number is out of its range, or two options contradict each other.
    """
    from foveal.tasks.kinds import kind_of

    check_ranges(recipe, asker)
    kind = kind_of(recipe)
    if recipe.best and recipe.best not in kind.metrics:
        raise OptionError(f"{asker}: --best must be one of {', '.join(kind.metrics)}, got {recipe.best!r}.")
    kind.check(recipe)


def check_ranges(recipe: Training, asker: str) -> None:
    """The part of ``check`` that is the same for every task, and imports no torch."""
    for name, value in leaves(recipe):
        bounds = BOUNDS.get(name)
        for number in value if isinstance(value, tuple) else (value,):
            if bounds is not None and number is not None and not bounds.hold(number):
                raise OptionError(f"{asker}: {option(name)} must be {bounds.words}, got {number!r}.")
    if recipe.batch_size % recipe.accumulate:
        raise OptionError(
            f"{asker}: --batch-size {recipe.batch_size} cannot be taken in --accumulate {recipe.accumulate} equal "
            "parts. Use a number of parts that divides it."
        )
    _check_schedule(recipe.schedule, recipe.epochs, asker)
    check_idle(recipe, asker)


def _check_schedule(schedule: ScheduleOptions, epochs: int, asker: str) -> None:
    if schedule.name == "restarts" and not schedule.restarts:
        raise OptionError(f"{asker}: --schedule.name restarts needs --schedule.restarts. Give epochs such as 25 45 85.")
    if schedule.name == "step" and not schedule.steps:
        raise OptionError(f"{asker}: --schedule.name step needs --schedule.steps. Give epochs such as 30 60 90.")
    if list(schedule.restarts) != sorted(set(schedule.restarts)):
        raise OptionError(f"{asker}: --schedule.restarts must rise, got {_listed(schedule.restarts)}. Sort them.")
    if schedule.name == "restarts" and schedule.restarts[0] <= schedule.warmup:
        raise OptionError(
            f"{asker}: the first of --schedule.restarts, {schedule.restarts[0]:g}, must come after the warm-up of "
            f"{schedule.warmup:g} epochs. Use a shorter --schedule.warmup."
        )
    if schedule.warmup + schedule.cooldown > epochs:
        raise OptionError(
            f"{asker}: a warm-up of {schedule.warmup:g} and a cooldown of {schedule.cooldown:g} epochs do not fit into "
            f"{epochs} epochs. Use more --epochs, or a shorter --schedule.warmup."
        )


def leaves(options: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every option with its dotted name."""
    for field in fields(options):
        value, name = getattr(options, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            yield from leaves(value, f"{name}.")
        else:
            yield name, value


def option(name: str) -> str:
    """``batch_size`` as the command line writes it."""
    return "--" + name.replace("_", "-")


def _listed(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{number:g}" for number in numbers)
