"""Predicted time beside measured time: on layers that speeds were not measured on, and on whole models."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

import torch

from foveal.analysis.advice import place_in, put
from foveal.analysis.calibration import SECONDS_A_LAYER, measure, time_of
from foveal.analysis.calibration_layers import checked
from foveal.analysis.operators import operators
from foveal.analysis.prediction import Speeds
from foveal.analysis.runnable import runnable
from foveal.analysis.target import Size, Target
from foveal.errors import FovealError
from foveal.models.mechanisms import mechanism

LONGEST_MS = 500.0
SECONDS_A_MODEL = 1.5


@dataclass(frozen=True)
class Checked:
    """One layer or model: milliseconds predicted and measured; ``error`` is their difference over the measurement."""

    name: str
    group: str
    kind: Literal["layer", "model"]
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def check_layers(
    speeds: Speeds, *, device: torch.device | str = "cpu", watch: Callable[[str], None] = lambda name: None
) -> list[Checked]:
    """The layers of ``calibration_layers.checked``, none of which speeds come from."""
    return [
        Checked(
            row.sample.name, row.sample.mechanism, "layer", speeds.predict(row.operators.rows), 1e3 * row.seconds
        )
        for row in measure(checked(), device=device, seconds=SECONDS_A_LAYER, watch=watch)
    ]  # fmt: skip


def check_models(
    speeds: Speeds,
    target: Target,
    size: Size,
    names: Sequence[str],
    *,
    sites: Sequence[str] = (),
    batch: int = 1,
    device: torch.device | str = "cpu",
    watch: Callable[[str], None] = lambda name: None,
) -> list[Checked]:
    """The model itself (``none``) and with each mechanism at its whole place, as in ``advise``.

    What is predicted to take longer than ``LONGEST_MS`` is left out, and so is what has no place in the model.
    """
    found = []
    for name in ("none", *names):
        watch(f"{target.name} with {name}")
        model = runnable(copy.deepcopy(target.build(size)).eval().to(device))
        inputs = tuple(_filled(each, device) for each in target.inputs(model, batch, size))
        if name != "none":
            _, where = place_in(model, sites)
            try:
                put(model, mechanism(name), where, asked=bool(sites), example=inputs)
            except FovealError:
                continue
        predicted = speeds.predict(operators(model, inputs, device=device).rows)
        if predicted <= LONGEST_MS:
            measured = 1e3 * time_of(model, inputs, SECONDS_A_MODEL)
            found.append(Checked(f"{target.name} with {name}", name, "model", predicted, measured))
    return found


def _filled(like: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Values for an input that has none."""
    if like.dtype.is_floating_point:
        return torch.rand(like.shape, device=device)
    return torch.zeros_like(like, device=device)


def median_error(rows: Sequence[Checked]) -> float:
    """The median over layers or models of the error without its sign."""
    return median(abs(row.error) for row in rows)


def by_group(rows: Sequence[Checked]) -> dict[str, list[Checked]]:
    """Rows by mechanism, in order."""
    groups: dict[str, list[Checked]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return groups
