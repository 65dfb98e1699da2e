"""Every task on its small data, with attention and without: trains what is not trained yet and writes docs/small.md.

``python benchmarks/small.py`` trains all, two runs at a time on one thread each; ``--only stereo points`` some;
``--write`` trains nothing and writes the page from what is there. What was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from foveal.data.generated import generated
from foveal.tasks.kind import Asked
from foveal.tasks.kinds import kind_named
from foveal.tasks.opened import open_models

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "tasks.png"
RUNS = ROOT / "runs" / "sweeps" / "small"
SCENE, PAIR = 8, 3  # what is shown
PAGE = ROOT / "docs" / "small.md"


class Goal(NamedTuple):
    """What a metric must reach, in per cent or its unit."""

    metric: str
    bound: float
    least: bool = False

    def met(self, value: float) -> bool:
        """Whether a value reaches it."""
        return value <= self.bound if self.least else value >= self.bound

    @property
    def text(self) -> str:
        """As the table says it."""
        return f"{'≤' if self.least else '≥'} {self.bound:g}"


GOALS = {
    "detection": (Goal("box_ap50", 50), Goal("mask_ap50", 40)),
    "segmentation": (Goal("miou", 60),),
    "stereo": (Goal("epe", 1.5, least=True),),
    "generation": (Goal("fid_share", 20, least=True), Goal("recognised", 80)),
    "points": (Goal("accuracy", 95),),
    "point-parts": (Goal("instance_miou", 85),),
}


def train(grid: str) -> None:
    """All runs of a grid that are not there yet."""
    command = ["foveal", "sweep", f"small/{grid}", "--jobs", "2", "--threads", "2", "--out", str(RUNS / grid)]
    done = subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:]], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)  # the sweep has said why


def section(grid: str) -> list[str]:
    """The table of a grid, from its results."""
    results: dict[str, Any] = json.loads((RUNS / grid / "results.json").read_text())
    goals, rows = GOALS[grid], results["table"]
    heads = [_words(results, goal.metric) + f" ({goal.text})" for goal in goals]
    lines = [f"## {grid}", "", f"`foveal sweep small/{grid} --jobs 2 --threads 2`: {results['about']['table']}.", ""]
    lines += [f"| attention | {' | '.join(heads)} | parameters | seconds |", "|---" + "|---:" * (len(goals) + 2) + "|"]
    for row in rows:
        if row["runs"]:
            told = [_figure(row["metrics"][goal.metric]["mean"], goal) for goal in goals]
            lines.append(f"| {row['row']} | {' | '.join(told)} | {row['parameters']:,} | {row['seconds']:.0f} |")
    return [*lines, ""]


def _figure(value: float | None, goal: Goal) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if goal.met(value) else f"**missed:** {value:.2f}"


def _words(results: Mapping[str, Any], metric: str) -> str:
    measure = results["measures"][metric]
    unit = "%" if measure["percent"] else measure["unit"]
    return f"{measure['words']}{f', {unit}' if unit else ''}"


def picture() -> None:
    """What a run of each task with attention answers, as ``foveal predict --draw`` draws it, in two rows."""
    scenes, planes = generated("digit-scenes"), generated("photo-planes")
    left = sorted(planes.rglob("TEST/**/left/*.png"))[PAIR]
    scene = str(sorted((scenes / "val").glob("*.jpg"))[SCENE])
    cells = [
        _drawn("detection", "efficient", [scene], Asked(draw=True)),
        _drawn("segmentation", "external", [scene], Asked(draw=True)),
        _drawn("generation", "external", [], Asked(draw=True, count=100)),
        np.asarray(Image.open(left).convert("RGB")),
        _drawn("stereo", "efficient", [str(left)], Asked(draw=True, right=(str(left).replace("left", "right"),))),
    ]
    os.chdir(generated("solid-parts"))  # the picture tells the path
    cells.append(_drawn("point-parts", "external", ["ply_data_test0.h5"], Asked(draw=True)))
    rows = [_beside(cells[:3], 300), _beside(cells[3:], 200)]
    width = max(row.shape[1] for row in rows)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    padded = [np.pad(row, ((0, 16), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    Image.fromarray(np.concatenate(padded)[:-16]).save(PICTURE, optimize=True)


def _drawn(grid: str, row: str, files: list[str], asked: Asked) -> npt.NDArray[np.uint8]:
    opened = open_models(RUNS / grid / "runs" / f"{row}-0")
    # The last one of generation shows all samples; of clouds the first one is drawn.
    answers = kind_named(opened.recipe.task).answers(opened, files, asked)
    answer = list(answers)[-1] if not files else next(answers)
    return np.asarray(answer.picture)


def _beside(cells: list[npt.NDArray[np.uint8]], height: int) -> npt.NDArray[np.uint8]:
    """Pictures in a row, each of this height."""
    made = []
    for cell in cells:
        width = round(cell.shape[1] * height / cell.shape[0])
        made.append(np.asarray(Image.fromarray(cell).resize((width, height), Image.Resampling.LANCZOS)))
    return np.concatenate([np.pad(cell, ((0, 0), (0, 16), (0, 0)), constant_values=255) for cell in made], 1)[:, :-16]


def page() -> str:
    """The whole page."""
    there = [grid for grid in GOALS if (RUNS / grid / "results.json").is_file()]
    told = json.loads((RUNS / there[0] / "results.json").read_text())["environment"]
    lines = [
        "# Every task, small",
        "",
        "Printed by `make small`: every task on data that foveal generates, with attention and without, one seed, all",
        "else equal. Goals in brackets are of quality; one seed says nothing of which attention is better. Seconds are",
        "of training and measuring, beside another run.",
        f"{told['cpu']}, torch {told['packages']['torch']}, two runs at a time on one thread each.",
        "",
        "![What a run of each task answers](images/tasks.png)",
        "",
    ]
    for grid in there:
        lines += section(grid)
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=GOALS, default=list(GOALS), help="tasks to train")
    parser.add_argument("--write", action="store_true", help="train nothing")
    given = parser.parse_args()
    if not given.write:
        for grid in given.only:
            train(grid)
    PAGE.write_text(page())
    picture()
    print(f"{PAGE.relative_to(ROOT)} and {PICTURE.relative_to(ROOT)} written")


if __name__ == "__main__":
    main()
