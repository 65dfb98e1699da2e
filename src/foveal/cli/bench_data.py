"""``foveal bench data``: the input pipeline by itself."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from foveal.cli.overrides import RecipeCommand, parsed
from foveal.cli.said import check_folder, print_written
from foveal.errors import OptionError
from foveal.tasks.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from foveal.analysis.data_rates import DataRates, Rate
    from foveal.data.images import ImageData

HELP = """Measure how many images a second the training data of a recipe gives: stage by stage in one process, then the
whole loader by number of workers, beside what the recipe's model takes. Medians of rounds, quartiles in brackets.

examples:
  foveal bench data
  foveal bench data --data.name digit-pairs
  foveal bench data --photographs 200 --model.name resnet18
  foveal bench data explicit/imagenet-resnet50 --data.path imagenet --workers 0 4 8
  foveal bench data --data.name folder --data.path photos --data.augmentation.policy rand-m9-mstd0.5-inc1
"""
MOST_WORKERS = 256


@dataclass(frozen=True)
class BenchData(RecipeCommand):
    """The options of ``bench data``."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[RECIPE]")] = ""
    """A name or the path of a YAML file; the defaults of a recipe where left out."""
    workers: tuple[int, ...] = (0, 1, 2)
    """Numbers of worker processes to measure."""
    photographs: int = 0
    """Instead of the recipe's data: so many JPEG files of 500 x 375 pixels, made for the time."""
    model: bool = True
    """Also time a training step of the recipe's model, on 32 images at most."""
    seconds: float = 2.0
    """To spend on each number of workers in each of seven rounds."""
    threads: int | None = None
    """Threads of torch; all cores where left out."""
    json: bool = False
    """Print the records as JSON instead of a table."""
    out: str | None = None
    """Write the records as JSON into this file, beside the table."""

    when_interrupted = "Nothing was written."

    def run(self) -> int:
        from foveal.cli.threads import use_threads
        from foveal.tasks.run_folder import environment, write_json

        self._check()
        check_folder("--out", self.out)
        use_threads(self.threads)
        with given_data(self.given(), self.photographs) as recipe:
            found = self._measure(recipe)
        if self.photographs:
            found = replace(found, data=f"{self.photographs} photographs")
        records = {"environment": environment(), **asdict(found)}
        if self.json:
            print(json.dumps(records, indent=1))
        else:
            print_rates(found, recipe.model.name, records["environment"])
        if self.out is not None:
            write_json(Path(self.out), records)
            print_written(self.out, quiet=self.json)
        return 0

    def _check(self) -> None:
        if not self.workers or min(self.workers) < 0 or max(self.workers) > MOST_WORKERS:
            raise OptionError(
                f"bench data: --workers must be numbers from 0 to {MOST_WORKERS}, got "
                f"{' '.join(map(str, self.workers)) or 'none'}. Use 0 1 2, say."
            )
        if len(set(self.workers)) < len(self.workers):
            raise OptionError("bench data: --workers names a number twice. Give each once.")
        if not self.seconds > 0:
            raise OptionError(f"bench data: --seconds must be positive, got {self.seconds:g}. Use 2, say.")

    def _measure(self, recipe: Recipe) -> DataRates:
        from foveal.analysis.data_rates import data_rates, steps
        from foveal.cli.waiting import bar
        from foveal.data import load_options
        from foveal.data.blending import Blend
        from foveal.tasks.classifying import KIND
        from foveal.tasks.networks import check_fits

        data = load_options(recipe.data)
        model = KIND.networks(recipe, KIND.told(recipe, data))["model"] if self.model else None
        if model is not None:
            name, classes = recipe.model.name, len(data.classes)
            check_fits(model, name, classes=classes, channels=data.channels, size=data.size)
        blend = Blend(recipe.data.augmentation, len(data.classes))
        with bar("measuring", steps(self.workers, self.model), quiet=self.json) as watch:
            return data_rates(
                data, loader(data), batch=min(recipe.batch_size, len(data.train)), workers=self.workers, blend=blend,
                model=model, seconds=self.seconds, watch=watch,
            )  # fmt: skip


@contextmanager
def given_data(recipe: Recipe, photographs: int) -> Iterator[Recipe]:
    """The recipe, on photographs where some are asked for; they are gone afterwards."""
    if not photographs:
        yield recipe
        return
    if photographs < 20:
        raise OptionError(f"bench: --photographs must be at least 20, got {photographs}. Use 200, say.")
    from foveal.analysis.photographs import write_photographs

    with tempfile.TemporaryDirectory(prefix="foveal-photographs-") as folder:
        path = str(write_photographs(Path(folder), photographs))
        yield replace(recipe, data=replace(recipe.data, name="folder", path=path))


def loader(data: ImageData) -> Any:
    """Reads training images as training does, with workers that stay."""
    from foveal.tasks.reading import Reader

    readers: dict[int, Reader] = {}

    def read(workers: int, chosen: Sequence[list[int]]) -> Iterable[tuple[Tensor, Tensor]]:
        reader = readers.setdefault(workers, Reader(workers))
        return reader.read(data.train, 0, 0, chosen)

    return read


def parse(given: Sequence[str]) -> BenchData:
    """The command with a recipe's values as defaults; says what is wrong and exits."""
    return recipe_command(BenchData, "foveal bench data", HELP, given)


def recipe_command(kind: Any, prog: str, told: str, given: Sequence[str]) -> Any:
    """A command of that kind: a recipe first, or its defaults where none is named, then options.

    Raises:
        FovealError: the recipe cannot be read.
    """
    from foveal.tasks.recipe_files import read_recipe

    named = given[0] if given and not given[0].startswith("-") else ""
    recipe = read_recipe(named) if named else Recipe()
    return parsed(kind, recipe, given, prog=prog, description=told, recipe=named)


def print_rates(found: DataRates, model: str, told: dict[str, Any]) -> None:
    """A row a stage, and how many times as fast as the model each is."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    sizes = f"{found.images:,} images, {found.channels} x {found.size} x {found.size}, batches of {found.batch}"
    console.print(f"{found.data}: {sizes}", markup=False)
    console.print(
        f"threads {told['threads']}, cores {told['cores']}, torch {told['packages']['torch']}, {told['cpu']}",
        markup=False,
    )
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("", overflow="fold")
    for heading in ("images/s (quartiles)", "ms an image", "times the model"):
        table.add_column(heading, justify="right", no_wrap=True)
    extra = [row for row in (found.blend, found.model) if row is not None]
    for row in (*found.stages, *found.loader, *extra):
        times = "" if found.model is None or row is found.model else f"{row.median / found.model.median:.2f}"
        table.add_row(_named(row), _figure(row), f"{1e3 / row.median:.3g}", times)
    console.print(table)
    for line in _notes(found, model):
        console.print(line, markup=False, soft_wrap=True)


def _named(row: Rate) -> str:
    return row.stage if row.workers is None else f"{row.stage}, {row.workers} worker{'' if row.workers == 1 else 's'}"


def _figure(row: Rate) -> str:
    from foveal.cli.units import digits

    median, q1, q3 = (f"{rate:,.0f}" if rate >= 100 else digits(rate) for rate in (row.median, row.q1, row.q3))
    return f"{median} ({q1} to {q3})"


def _notes(found: DataRates, model: str) -> list[str]:
    lines = [f"Medians of {found.loader[0].rounds} rounds. Files lie in the system's cache."]
    if found.stages[-1].stage == "batch at once":
        lines.append("These images are in memory and taken a batch at once, so no workers are started.")
    if found.model is not None:
        lines.append(
            f"The training step is that of {model}, alone; workers on the same cores take from it what they use."
        )
    return lines
