"""``foveal bench training``: where the time of a training step goes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from foveal.cli.bench_data import given_data, recipe_command
from foveal.cli.overrides import RecipeCommand
from foveal.cli.said import check_folder, print_written

if TYPE_CHECKING:
    from foveal.tasks.loop import Watch
    from foveal.tasks.recipe import Recipe
    from foveal.tasks.step_shares import Share, StepShares

HELP = """Train a recipe for some steps in a temporary folder, as foveal train does, and print the share of wall time
that forward, backward, optimiser, data and all else take.

examples:
  foveal bench training
  foveal bench training --photographs 400 --model.name resnet18 --batch-size 32 --steps 40
  foveal bench training explicit/cifar100 --data.path data --precision bf16
"""
GOAL = 0.05
WORDS = {"optimizer": "optimiser", "average": "moving average", "rest": "all else"}


@dataclass(frozen=True)
class BenchTraining(RecipeCommand):
    """The options of ``bench training``."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[RECIPE]")] = ""
    """A name or the path of a YAML file; the defaults of a recipe where left out, as foveal compare trains."""
    steps: int = 200
    """Steps to count, after five that warm up."""
    photographs: int = 0
    """Instead of the recipe's data: so many JPEG files of 500 x 375 pixels, made for the time."""
    threads: int | None = None
    """Threads of torch; all cores where left out."""
    json: bool = False
    """Print the records as JSON instead of a table."""
    out: str | None = None
    """Write the records as JSON into this file, beside the table."""

    when_interrupted = "Nothing was written."

    def run(self) -> int:
        from foveal.cli.threads import use_threads
        from foveal.cli.training_progress import TrainingProgress
        from foveal.tasks.run_folder import environment, write_json
        from foveal.tasks.step_shares import step_shares

        check_folder("--out", self.out)
        use_threads(self.threads)
        with ExitStack() as stack:
            recipe = stack.enter_context(given_data(self.given(), self.photographs))

            def watch(trained: Recipe) -> Watch:
                return stack.enter_context(TrainingProgress(trained, quiet=self.json)).at

            found = step_shares(recipe, self.steps, watch=watch)
        if self.photographs:
            found = replace(found, data=f"{self.photographs} photographs")
        records = {"environment": environment(), **asdict(found)}
        if self.json:
            print(json.dumps(records, indent=1))
        else:
            print_shares(found, records["environment"])
        if self.out is not None:
            write_json(Path(self.out), records)
            print_written(self.out, quiet=self.json)
        return 0


def parse(given: Sequence[str]) -> BenchTraining:
    """The command with a recipe's values as defaults; says what is wrong and exits."""
    made: BenchTraining = recipe_command(BenchTraining, "foveal bench training", HELP, given)
    return made


def print_shares(found: StepShares, told: dict[str, Any]) -> None:
    """A row a phase, and whether the goal is met."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    workers = f"{found.workers} worker{'' if found.workers == 1 else 's'}"
    sizes = f"{found.size} pixels, batches of {found.batch}, {workers}; {found.steps} steps"
    console.print(f"{found.model} on {found.data} of {sizes}", markup=False)
    console.print(
        f"threads {told['threads']}, cores {told['cores']}, torch {told['packages']['torch']}, {told['cpu']}",
        markup=False,
    )
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("phase")
    for heading in ("ms a step", "share (quartiles)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in found.phases:
        table.add_row(WORDS.get(row.phase, row.phase), f"{row.ms:.3f}", _figure(row))
    console.print(table)
    verdict = "below" if found.outside.share < GOAL else "not below"
    console.print(
        f"Outside forward, backward and optimiser: {_figure(found.outside)}, {verdict} {100 * GOAL:.0f} %. "
        "Quartiles are over ten blocks of steps.",
        markup=False,
        soft_wrap=True,
    )
    between = f"evaluation {found.evaluate_seconds:.2f} s, checkpoints {found.checkpoint_seconds:.2f} s"
    console.print(f"Between steps, in all: {between}.", markup=False)


def _figure(row: Share) -> str:
    return f"{100 * row.share:.2f} % ({100 * row.share_q1:.2f} to {100 * row.share_q3:.2f})"
