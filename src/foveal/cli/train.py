"""``foveal train``."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from foveal.cli.overrides import RecipeCommand, parsed
from foveal.errors import OptionError
from foveal.tasks.recipe import About, Recipe
from foveal.tasks.recipe_files import names, read_recipe

ABOUT = "Train one model by a recipe, into a folder; the same command goes on where it was stopped."
HELP = f"""{ABOUT}

RECIPE is a name of the list below or the path of a YAML file. What it says stands as defaults in foveal train RECIPE
--help, and every option overrides it. --model.options.NAME VALUE passes a further argument to the model.

examples:
  foveal train small/digits-none
  foveal train explicit/cifar100 --data.path data --out runs/expatt
  foveal train explicit/cifar100 --plan
  foveal train local/imagenet-resnet26 --data.path imagenet --batch-size 256 --optimizer.lr 0.1
  torchrun --nproc-per-node 2 --no-python foveal train small/digits-none

recipes:
"""
WIDTH = 78


@dataclass(frozen=True)
class Train(RecipeCommand):
    """The options of ``train``."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """A name or the path of a YAML file."""
    out: str | None = None
    """Folder of the run; runs/RECIPE where left out."""
    plan: bool = False
    """Print what would be trained, with learning rates, steps, parameters and sources, and train nothing."""
    threads: int | None = None
    """Threads of torch; all cores where left out."""
    save_seconds: float = 30.0
    """Least time between two checkpoints."""
    json: bool = False
    """Print the result as JSON."""

    @property
    def folder(self) -> str:
        """Where the run goes."""
        if self.out is not None:
            return self.out
        named = Path(self.recipe)
        return str(Path("runs") / (named.stem if named.suffix or named.is_absolute() else self.recipe))

    @property
    def when_interrupted(self) -> str:
        """What to tell who pressed Ctrl-C."""
        return f"The same command goes on where {self.folder} stands."

    def run(self) -> int:
        from foveal.cli.threads import use_threads

        use_threads(self.threads)
        if self.save_seconds < 0:
            raise OptionError(f"train: --save-seconds must be at least 0, got {self.save_seconds:g}.")
        if self.plan:
            return self._show()
        from foveal.cli.training_progress import TrainingProgress, print_result
        from foveal.tasks.train import train

        speaks = os.environ.get("RANK", "0") == "0"
        recipe = self.given()
        with TrainingProgress(recipe, quiet=not speaks) as progress:
            record = train(recipe, self.folder, watch=progress.at, say=progress.say, save_seconds=self.save_seconds)
        if speaks and self.json:
            print(json.dumps(record, indent=1))
        elif speaks:
            print_result(record, self.folder)
        return 0

    def _show(self) -> int:
        from foveal.cli.training_plan import print_plan
        from foveal.tasks.preview import preview

        print_plan(preview(self.given()), as_json=self.json)
        return 0


def parse(given: Sequence[str]) -> Train:
    """The command with a recipe's values as defaults; says what is wrong and exits.

    Raises:
        FovealError: the recipe cannot be read.
    """
    prog = "foveal train"
    if not given or {"-h", "--help"} & {given[0]}:
        return parsed(Train, Recipe(), given, prog=prog, description=HELP + listed(names()))
    if given[0].startswith("-"):
        raise OptionError(f"train: the recipe comes first, got {given[0]}. Write foveal train RECIPE {given[0]} ….")
    recipe = read_recipe(given[0])
    told = f"Train {given[0]}.\n\n{source(recipe.about)}"
    return parsed(Train, recipe, given, prog=prog, description=told, recipe=given[0])


def source(about: About) -> str:
    """Where a recipe comes from, in a few lines."""
    return "\n".join(line for line in (about.paper, about.table) if line)


def listed(found: Sequence[str]) -> str:
    """Names by folder, wrapped."""
    by_folder: dict[str, list[str]] = {}
    for name in found:
        folder, _, own = name.rpartition("/")
        by_folder.setdefault(folder, []).append(own)
    indent = "      "
    return "\n".join(
        f"  {folder}/\n" + textwrap.fill("  ".join(own), WIDTH, initial_indent=indent, subsequent_indent=indent,
                                         break_on_hyphens=False)
        for folder, own in sorted(by_folder.items())
    )  # fmt: skip
