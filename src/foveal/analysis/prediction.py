"""Time of a model, predicted from its operators: every kind of work at a speed that was measured on this machine.

    time = sum over operators of  overhead + macs / rate + bytes / bandwidth

with numbers of their own for each kind of operator, none negative, fitted by least squares of the relative error. Fused
attention has a rate of exponentials, too. Small tensors stay in cache and move faster, so bytes of operators above
``FAR_BYTES`` have a bandwidth of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foveal.analysis.operators import FUSED, Operator

FAR_BYTES = 4 << 20
# What a kind without a measurement is taken for: the nearest kind that every calibration has.
PLAIN, MULTIPLYING = "elementwise", "product"

Features = dict[str, float]


@dataclass(frozen=True)
class Speeds:
    """Seconds a unit of each feature, named ``kind unit``; units are calls, macs, scores, near and far bytes."""

    seconds: dict[str, float]

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(name.rpartition(" ")[0] for name in self.seconds)

    def predict(self, rows: Iterable[Operator]) -> float:
        """Milliseconds."""
        return 1e3 * sum(self._a_unit(name) * amount for name, amount in features(self._known(rows)).items())

    def _a_unit(self, name: str) -> float:
        """Bytes of maps larger than any that was measured are as fast as those that were."""
        kind, _, unit = name.rpartition(" ")
        other = {"near": "far", "far": "near"}.get(unit, unit)
        return self.seconds.get(name, self.seconds.get(f"{kind} {other}", 0.0))

    def unknown(self, rows: Iterable[Operator]) -> tuple[str, ...]:
        """Kinds that were not measured and are taken for others."""
        return tuple(sorted({row.kind for row in rows} - self.kinds))

    def _known(self, rows: Iterable[Operator]) -> Iterable[Operator]:
        for row in rows:
            if row.kind in self.kinds:
                yield row
            else:
                kind = MULTIPLYING if row.macs else PLAIN
                yield replace(row, kind=kind)


def features(rows: Iterable[Operator]) -> Features:
    """Calls, multiply-accumulates and bytes by kind."""
    sums: Features = {}
    for row in rows:
        # Fused attention takes its blocks one by one, and keeps them in cache.
        place = "far" if row.moved > FAR_BYTES and row.kind != FUSED else "near"
        for unit, amount in (("calls", 1), ("macs", row.whole or row.macs), ("scores", row.scores), (place, row.moved)):
            if amount:
                name = f"{row.kind} {unit}"
                sums[name] = sums.get(name, 0.0) + amount
    return sums


def fit(samples: Sequence[tuple[Sequence[Operator], float]]) -> Speeds:
    """Speeds from pairs of a layer's operators and its measured seconds."""
    tables = [features(rows) for rows, _ in samples]
    names = sorted({name for table in tables for name in table})
    # Over the time itself, so that a short layer counts as much as a long one.
    a = torch.tensor(
        [
            [table.get(name, 0.0) / seconds for name in names]
            for table, (_, seconds) in zip(tables, samples, strict=True)
        ],
        dtype=torch.float64,
    )
    scale = a.norm(dim=0).clamp_min(1e-300)
    x = nonnegative_least_squares(a / scale, torch.ones(len(samples), dtype=torch.float64)) / scale
    return Speeds(dict(zip(names, x.tolist(), strict=True)))


def nonnegative_least_squares(rows: Tensor, times: Tensor) -> Tensor:
    """Lawson and Hanson's active sets: the exact minimum of |rows x - times| over x >= 0."""
    width = rows.shape[1]
    x = torch.zeros(width, dtype=rows.dtype)
    free = torch.zeros(width, dtype=torch.bool)
    for _ in range(3 * width):
        pull = rows.mT @ (times - rows @ x)
        pull[free] = -1.0
        if float(pull.max()) <= 1e-10:
            break
        free[int(pull.argmax())] = True
        trial = _solve(rows, times, free)
        while float(trial[free].min()) <= 0:
            blocked = free & (trial <= 0)
            step = float((x[blocked] / (x[blocked] - trial[blocked]).clamp_min(1e-300)).min())
            x = x + step * (trial - x)
            free &= x > 1e-15
            x[~free] = 0
            if not bool(free.any()):
                return x
            trial = _solve(rows, times, free)
        x = trial
    return x


def _solve(rows: Tensor, times: Tensor, free: Tensor) -> Tensor:
    x = torch.zeros(rows.shape[1], dtype=rows.dtype)
    x[free] = torch.linalg.lstsq(rows[:, free], times.unsqueeze(1), driver="gelsd").solution.squeeze(1)
    return x
