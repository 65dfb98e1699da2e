"""``foveal sweep``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from foveal.cli.overrides import RecipeCommand, parsed, split_options
from foveal.cli.train import listed
from foveal.errors import FovealError, OptionError
from foveal.tasks.grid import Grid, find, names, read_grid
from foveal.tasks.recipe import Recipe
from foveal.tasks.recipe_check import leaves

ABOUT = "Train every run of a grid, here or on a cluster; one table with published values beside the means."
HELP = f"""{ABOUT}
The same command goes on where it was stopped.

GRID is a name of the list below or the path of a YAML file. Every option of a recipe overrides all runs; one that the
grid lists takes that value alone.

examples:
  foveal sweep small/rates --out runs/rates
  foveal sweep explicit/cifar100 --plan
  foveal sweep explicit/cifar100 --data.path data --seed 0 --out runs/decays
  foveal sweep local/extents --data.path imagenet --only '3 x 3' '7 x 7' --out runs/extents
  foveal sweep local/extents --data.path /shared/imagenet --cluster auto --cpus 8 --gpus 1 --out /shared/extents

grids:
"""


@dataclass(frozen=True)
class Sweep(RecipeCommand):
    """The options of ``sweep``."""

    grid: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="GRID")]
    """A name or the path of a YAML file."""
    out: str | None = None
    """Folder of all runs and their table; runs/sweeps/GRID where left out."""
    plan: bool = False
    """Print the runs with their parameters and published values, and train nothing."""
    only: tuple[str, ...] = ()
    """Some rows, by label or folder; all where left out."""
    retry: bool = False
    """Try runs again that failed, from their checkpoints."""
    jobs: int = 1
    """Runs at a time on this machine, each with its share of the threads."""
    threads: int | None = None
    """Threads of all runs together on this machine; all cores where left out."""
    cluster: str | None = None
    """Run on a Ray cluster instead: auto for the one that this machine belongs to, or its address. --out must be a
    folder that every machine sees."""
    cpus: int = 1
    """Cores of a run on a cluster."""
    gpus: float = 0.0
    """GPUs of a run on a cluster, or a share of one."""
    save_seconds: float = 30.0
    """Least time between two checkpoints of a run."""
    json: bool = False
    """Print the results as JSON."""
    overrides: Annotated[dict[str, Any], tyro.conf.Fixed, tyro.conf.Suppress] = field(default_factory=dict)
    """What was overridden, by dotted names."""
    command: Annotated[str, tyro.conf.Fixed, tyro.conf.Suppress] = ""
    """What was typed."""

    @property
    def folder(self) -> str:
        """Where everything goes."""
        if self.out is not None:
            return self.out
        named = Path(self.grid)
        return str(Path("runs") / "sweeps" / (named.stem if named.suffix or named.is_absolute() else self.grid))

    @property
    def when_interrupted(self) -> str:
        """What to tell who pressed Ctrl-C."""
        return f"The same command goes on where {self.folder} stands."

    def run(self) -> int:
        from foveal.cli.threads import use_threads
        from foveal.tasks.jobs import Where

        use_threads(self.threads)
        if self.save_seconds < 0:
            raise OptionError(f"sweep: --save-seconds must be at least 0, got {self.save_seconds:g}. Use 30, say.")
        where = Where(self.jobs, self.cluster, self.cpus, self.gpus)
        where.check("sweep")
        grid = read_grid(self.grid, self.overrides)
        grid = grid.only(self.only) if self.only else grid
        if self.plan:
            return self._show(grid)
        from foveal.cli.sweep_progress import SweepProgress
        from foveal.cli.sweep_table import print_sweep
        from foveal.tasks.sweep import sweep

        with SweepProgress(quiet=self.json) as watch:
            results = sweep(
                grid, self.folder, where, retry=self.retry, save_seconds=self.save_seconds, command=self.command,
                watch=watch,
            )  # fmt: skip
        if self.json:
            print(json.dumps(results, indent=1))
        else:
            print_sweep(results, Path(self.folder))
        failed = [record for record in results["records"] if record["status"] == "failed"]
        if failed:
            raise FovealError(
                f"sweep: {len(failed)} of {len(results['records'])} runs failed; the first, {failed[0]['run']}, with "
                f"{failed[0]['reason']}. The same command with --retry tries them again."
            )
        return 0

    def _show(self, grid: Grid) -> int:
        from foveal.cli.sweep_table import print_plan
        from foveal.tasks.sweep import plan

        print_plan(grid, plan(grid), as_json=self.json)
        return 0


def parse(given: Sequence[str]) -> Sweep:
    """The command with the values of the grid's recipe as defaults; says what is wrong and exits.

    Raises:
        FovealError: the grid or its recipe cannot be read.
    """
    prog = "foveal sweep"
    if not given or {"-h", "--help"} & {given[0]}:
        return parsed(Sweep, Recipe(), given, prog=prog, description=HELP + listed(names()))
    if given[0].startswith("-"):
        raise OptionError(f"sweep: the grid comes first, got {given[0]}. Write foveal sweep GRID {given[0]} ….")
    find(given[0])
    grid = read_grid(given[0])
    told = "\n".join(line for line in (grid.about.paper, grid.about.table) if line)
    made = parsed(Sweep, grid.base, given, prog=prog, description=f"Sweep {given[0]}.\n\n{told}", grid=given[0])
    rest, extra = split_options(given)
    overrides = _overrides(made.settings, rest) | {f"model.options.{name}": value for name, value in extra.items()}
    return replace(made, overrides=overrides, command=shlex.join(["foveal", "sweep", *given]))


def _overrides(settings: Any, given: Sequence[str]) -> dict[str, Any]:
    """The recipe's options that were typed, also those whose value is what the recipe has anyway."""
    typed = {word.partition("=")[0].removeprefix("--").replace("-", "_") for word in given if word.startswith("--")}
    found: dict[str, Any] = {}
    for name, value in leaves(settings):
        *parents, last = name.split(".")
        negated = ".".join([*parents, f"no_{last}"])
        if {name, negated} & typed:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found
