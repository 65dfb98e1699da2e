"""What the records of a comparison say, and no more than they can say.

Means of two mechanisms are called different only where they differ by more than chance over seeds explains: a t-test
at one per cent whose standard deviation is pooled over all mechanisms. The validation images are taken as given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, median, variance
from typing import Any

BASELINE = "none"

# Two-sided one per cent points of Student's t by degrees of freedom.
_STUDENT = {1: 63.66, 2: 9.92, 3: 5.84, 4: 4.60, 5: 4.03, 6: 3.71, 8: 3.36, 10: 3.17, 15: 2.95, 20: 2.85, 40: 2.70}


@dataclass(frozen=True)
class Row:
    """One mechanism over its seeds: last and best epoch, deviation over seeds, costs as medians over its records."""

    mechanism: str
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    mean: float | None
    best: float | None
    deviation: float | None
    costs: Mapping[str, float]
    sites: tuple[str, ...]
    failures: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Comparison:
    """All rows in order, and the least difference of means that is called clear (``margin``)."""

    rows: tuple[Row, ...]
    deviation: float | None
    margin: float | None

    def row(self, mechanism: str) -> Row | None:
        """The row of a mechanism that has a result, if there is one."""
        return next((row for row in self.done if row.mechanism == mechanism), None)

    @property
    def done(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.mean is not None)

    def differ(self, a: Row, b: Row) -> bool:
        """Whether two means are further apart than chance over seeds explains."""
        return self.margin is not None and abs(_mean(a) - _mean(b)) > self.margin


def summarise(records: Sequence[Mapping[str, Any]]) -> Comparison:
    """Gather the records of ``results.json`` by mechanism, in the order in which they first appear."""
    names = dict.fromkeys(str(record["mechanism"]) for record in records)
    rows = tuple(_row(name, [record for record in records if record["mechanism"] == name]) for name in names)
    return Comparison(rows, *_margin(rows))


def _row(name: str, records: Sequence[Mapping[str, Any]]) -> Row:
    done = [record for record in records if record.get("status") == "done"]
    accuracies = tuple(float(record["accuracy"]) for record in done)
    sites = next((record["sites"] for record in done if record.get("sites")), ())
    return Row(
        mechanism=name,
        seeds=tuple(int(record["seed"]) for record in done),
        accuracies=accuracies,
        mean=fmean(accuracies) if accuracies else None,
        best=_best(done),
        deviation=sqrt(variance(accuracies)) if len(accuracies) > 1 else None,
        costs=_costs(done),
        sites=tuple(str(site["name"] if isinstance(site, Mapping) else site) for site in sites),
        failures=tuple(
            (int(record["seed"]), str(record.get("reason") or "no reason was recorded"))
            for record in records
            if record.get("status") == "failed"
        ),
    )


def _best(records: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean over seeds of the best epoch, where every record has it."""
    best = [record.get("best_accuracy") for record in records]
    return fmean(float(value) for value in best) if best and None not in best else None  # type: ignore[arg-type]


def _costs(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Flat numbers: ``macs``, ``inference_ms.ratio``, and so on."""
    gathered: dict[str, list[float]] = {}
    plain = ("parameters", "macs", "inference_peak_bytes", "training_peak_bytes", "train_seconds")
    for record in records:
        for key in plain:
            if record.get(key) is not None:
                gathered.setdefault(key, []).append(float(record[key]))
        for key in ("inference_ms", "training_ms"):
            for part, value in (record.get(key) or {}).items():
                if isinstance(value, (int, float)):
                    gathered.setdefault(f"{key}.{part}", []).append(float(value))
    return {key: median(values) for key, values in gathered.items()}


def _margin(rows: Sequence[Row]) -> tuple[float | None, float | None]:
    repeated = [row for row in rows if len(row.accuracies) > 1]
    freedom = sum(len(row.accuracies) - 1 for row in repeated)
    if freedom == 0:
        return None, None
    deviation = sqrt(sum((len(row.accuracies) - 1) * variance(row.accuracies) for row in repeated) / freedom)
    seeds = min(len(row.accuracies) for row in rows if row.accuracies)
    student = _STUDENT[max(key for key in _STUDENT if key <= freedom)]
    return deviation, student * deviation * sqrt(2 / seeds)


def _mean(row: Row) -> float:
    return row.mean if row.mean is not None else float("nan")


def headline(comparison: Comparison) -> str:
    """The finding in a sentence or two, claiming no difference that the seeds do not support."""
    rows = sorted(comparison.done, key=_mean)
    if not rows:
        return "No run finished; the reasons are listed below."
    low, high = rows[0], rows[-1]
    span = f"{low.mechanism} with {percent(_mean(low))} to {high.mechanism} with {percent(_mean(high))}"
    if len(rows) == 1:
        return f"{high.mechanism} reaches {percent(_mean(high))}; there is nothing to compare it with."
    if comparison.margin is None:
        return f"With one seed, differences cannot be told from chance: accuracies run from {span}."
    base = comparison.row(BASELINE)
    if base is None:
        clear = "a clear difference" if comparison.differ(low, high) else "a difference within chance"
        return f"Mean accuracies run from {span}, {clear}. {_cheapest(comparison)}".strip()
    apart = [row for row in rows if row is not base and comparison.differ(row, base)]
    better = [row for row in reversed(apart) if _mean(row) > _mean(base)]
    worse = [row for row in apart if _mean(row) < _mean(base)]
    parts = [_against(better, "better", base), _against(worse, "worse", None if better else base)]
    if not apart:
        parts = [
            f"No mechanism differs clearly from no attention here: means run from {span}, all within chance of it."
        ]
    return " ".join(part for part in (*parts, _cheapest(comparison)) if part)


def _against(rows: Sequence[Row], word: str, base: Row | None) -> str:
    if not rows:
        return ""
    listed = join([f"{row.mechanism} ({percent(_mean(row))})" for row in rows])
    than = f" than no attention ({percent(_mean(base))})" if base else ""
    return f"Clearly {word}{than}: {listed}."


def _cheapest(comparison: Comparison) -> str:
    """Who trains fastest among those that the best mean is not clearly above."""
    best = max(comparison.done, key=_mean)
    key = "training_ms.ratio"
    level = [row for row in comparison.done if row is best or not comparison.differ(row, best)]
    timed = sorted((row for row in level if key in row.costs), key=lambda row: row.costs[key])
    if len(timed) < 2:
        return ""
    first, last = timed[0], timed[-1]
    count = "two" if len(level) == 2 else len(level)
    return (
        f"Of the {count} that cannot be told from the best, {first.mechanism} trains fastest and {last.mechanism} "
        f"slowest: one training step takes {last.costs[key] / first.costs[key]:.1f} times as long."
    )


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{100 * share:.{digits}f}\u00a0%"


def join(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
