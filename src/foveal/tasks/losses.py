"""What steps wrote down, left on its device until somebody looks, then added up in order and in double precision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bad:
    """A value that is no number."""

    name: str
    value: float
    step: int
    """Of its epoch, from 0."""


class Losses:
    """Sums over the steps of an epoch, how many steps are in each, and the newest values."""

    def __init__(self, sums: Mapping[str, float], counted: Mapping[str, int]) -> None:
        self.sums, self.counted = dict(sums), dict(counted)
        self.newest: dict[str, float] = {}
        self._unseen: list[tuple[int, dict[str, Tensor], bool]] = []

    def add(self, step: int, told: dict[str, Tensor], skipped: bool) -> None:
        """Keep what step number ``step`` wrote down. A step that was ``skipped`` may have no finite loss."""
        self._unseen.append((step, told, skipped))

    def look(self) -> Bad | None:
        """Wait for the device, add up, and return the first value that is no number."""
        unseen, self._unseen = self._unseen, []
        values = iter(_floats([value for _, told, _ in unseen for value in told.values()]))
        for step, told, skipped in unseen:
            floats = {name: next(values) for name in told}
            bad = next((name for name, value in floats.items() if not math.isfinite(value)), None)
            if bad is not None and not skipped:
                return Bad(bad, floats[bad], step)
            if bad is None:
                self.newest = floats
                # Not every model learns in every step.
                for name, value in floats.items():
                    self.sums[name] = self.sums.get(name, 0.0) + value
                    self.counted[name] = self.counted.get(name, 0) + 1
        return None


def _floats(values: list[Tensor]) -> list[float]:
    if not values or values[0].device.type == "cpu":
        return [float(value) for value in values]
    told: list[float] = torch.stack([value.reshape(()).double() for value in values]).tolist()
    return told
