"""What a benchmark measured: rows with a figure, its spread and a goal; printed as they come, stored at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from foveal.analysis import interleaved
from foveal.analysis.agreement import TOLERANCE, errors
from foveal.analysis.timing import quartiles

Call = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One measured figure; ``goal`` is the least (or the most) that it shall be, None where there is no goal."""

    group: str
    work: str
    figure: float
    q1: float
    q3: float
    unit: str
    samples: int
    least: float | None = None
    most: float | None = None

    @property
    def reached(self) -> bool | None:
        """None where there is no goal."""
        if self.least is not None:
            return self.figure >= self.least
        return None if self.most is None else self.figure <= self.most

    @property
    def goal(self) -> str:
        """As the table shows it."""
        if self.reached is None:
            return ""
        goal = f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"
        return goal if self.reached else f"**missed: {goal}**"

    @property
    def told(self) -> str:
        """The figure with its unit and quartiles."""
        figure, q1, q3 = (digits(x) for x in (self.figure, self.q1, self.q3))
        spread = f" ({q1} to {q3})" if self.samples > 1 else ""
        return f"{figure}{spread} {self.unit}".rstrip()


def digits(x: float) -> str:
    """Three significant digits, and no more than two behind the point."""
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}"


class Table:
    """The rows of one run."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.group = ""

    def add(self, work: str, values: Sequence[float], unit: str = "", **goal: float | None) -> None:
        """A figure: the median of the values."""
        ordered = list(values)
        self._append(work, median(ordered), *quartiles(ordered), unit, len(ordered), **goal)

    def faster(self, work: str, ours: Call, theirs: Call, *, least: float | None = None, **timing: Any) -> None:
        """Time of theirs over ours."""
        told = interleaved({"ours": ours, "theirs": theirs}, **{"seconds": 4.0, **timing})["theirs"]
        self._append(work, told.ratio, told.ratio_q1, told.ratio_q3, "times faster", told.rounds, least=least)

    def share(self, work: str, ours: Call, theirs: Call, *, most: float | None = None, **timing: Any) -> None:
        """Time of ours over theirs."""
        told = interleaved({"theirs": theirs, "ours": ours}, **{"seconds": 4.0, **timing})["ours"]
        self._append(work, told.ratio, told.ratio_q1, told.ratio_q3, "of its time", told.rounds, most=most)

    def _append(
        self, work: str, figure: float, q1: float, q3: float, unit: str, samples: int, **goal: float | None
    ) -> None:
        row = Row(self.group, work, figure, q1, q3, unit, samples, **goal)
        self.rows.append(row)
        print(f"  {work:88} {row.told:36} {row.goal.strip('*')}", flush=True)

    def write(self, folder: Path, results: Path, command: str, environment: dict[str, Any]) -> None:
        """The Markdown page and, beside the other results, the same as JSON."""
        told = ", ".join(f"{name} {value}" for name, value in environment.items())
        missed = sum(row.reached is False for row in self.rows)
        lines = ["# Time and memory on CPUs", "", f"Printed by `{command}` on: {told}.", "", PREFACE]
        lines += ["", f"Goals missed: {missed} of {sum(row.reached is not None for row in self.rows)}."]
        for group in dict.fromkeys(row.group for row in self.rows):
            lines += ["", f"## {group}", "", "| work | measured | goal |", "|---|---|---|"]
            lines += [f"| {row.work} | {row.told} | {row.goal} |" for row in self.rows if row.group == group]
        page = folder / "benchmarks.md"
        replaced(page, "\n".join(lines) + "\n" + _gpu_section(page))
        stored = {"command": command, "environment": environment, "rows": [asdict(row) for row in self.rows]}
        replaced(results / "cpu.json", json.dumps(stored, indent=1) + "\n")


PREFACE = """\
Every side of foveal's was first checked to agree with the definition, gradients too, and then timed in turns with the
other, so that whatever else the machine does falls on both. A figure is the median of the ratios within a round,
quartiles in brackets. "Forward" is inference; "forward + backward" includes the gradients of the input and of every
parameter. Against HaloAttn and the published formulations both sides get their map in the memory format that they
run faster in."""


# What benchmarks/gpu.py writes on the same page stands between these.
GPU_SECTION = ("<!-- gpu -->", "<!-- /gpu -->")


def _gpu_section(page: Path) -> str:
    """What the page has of it, to be kept."""
    text = page.read_text() if page.exists() else ""
    first, last = GPU_SECTION
    return "\n" + text[text.index(first) :] if first in text and last in text else ""


def replaced(path: Path, text: str) -> None:
    """Write a file anew, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def agree(work: str, came: Tensor | Sequence[Tensor], wanted: Tensor | Sequence[Tensor]) -> None:
    """Nothing is timed that computes something else."""
    for place, error in enumerate(errors(came, wanted)):
        if not error < TOLERANCE:
            raise SystemExit(f"bench: {work}: result {place} is off by {error:.1e} of its largest entry.")


def environment(instruction_set: str | None) -> dict[str, Any]:
    """What about the machine decides the figures."""
    return {
        "instruction set": instruction_set or "none (no native kernels)",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
