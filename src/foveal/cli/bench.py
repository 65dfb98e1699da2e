"""``foveal bench``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from foveal.cli.bench_streaming import run_streaming
from foveal.cli.said import check_folder, check_plot, counting_warnings, print_written

if TYPE_CHECKING:
    from foveal.analysis.bench import Bench as Result
    from foveal.analysis.bench import Measured
    from foveal.analysis.sides import Setting
    from foveal.analysis.timing import Timing

ABOUT = """Measure time and peak memory of ways to do one work, in turns, after a check that they do it.

suites:
  layers      every layer of foveal
  local       local attention: its backends, timm's HaloAttn, flex_attention, NATTEN, a convolution
  efficient   efficient attention: its backends, as published, timm's LambdaLayer, non-local
  external    external attention: its backends, as published
  explicit    explicit maps: their backends, the dense definition
  non_local   non-local, as published, scaled_dot_product_attention, timm's layers, augmented
  streaming   layers on a map larger than the memory they may use, 8192 x 8192 of 16 channels: 9 GB of disk
  data        the input pipeline of a recipe; options of its own: foveal bench data --help
  training    the shares of a training step; options of its own: foveal bench training --help
  points      work on a cloud of 16,384 points; options of its own: foveal bench points --help

examples:
  foveal bench
  foveal bench local --size 56 56 --threads 2 --plot local.png
  foveal bench local local:tiled local:reference halo kernel_size=7
  foveal bench efficient efficient:published --channels 256 --out efficient.json
  foveal bench streaming --size 2048 2048
  foveal bench data --photographs 200 --model.name resnet18
  foveal bench --list
"""


@dataclass(frozen=True)
class Bench:
    """The options of ``bench``."""

    names: Positional[tuple[str, ...]] = ("layers",)
    """One suite; or sides, a layer as local or local:BACKEND (native, tiled, reference, published, ...), the first
    being what the others are compared with; options of the layers as name=value."""
    size: tuple[int, ...] = ()
    """Rows and columns of the map; one number is a square; 28 28 where left out."""
    channels: int | None = None
    """Of the map; 64 where left out."""
    batch: int = 4
    """Samples."""
    seconds: float = 1.0
    """To spend a side, half on inference and half on training; three rounds are made in any case."""
    threads: int | None = None
    """Threads of torch; all cores where left out."""
    device: str = "cpu"
    """cpu, or cuda."""
    channels_last: bool = False
    """Give the map in the channels-last memory format."""
    list: bool = False
    """Show suites and sides, and measure nothing."""
    json: bool = False
    """Print the records as JSON instead of a table."""
    out: str | None = None
    """Write the records as JSON into this file, beside the table."""
    folder: str | None = None
    """Where streaming puts its map and result for the time; the system's temporary folder where left out."""
    plot: str | None = None
    """Draw forward time against the floor of the machine into this file, .svg or .png."""

    when_interrupted = "Nothing was written."

    def run(self) -> int:
        if self.list:
            return print_sides(self.json)
        if self.names[:1] == ("streaming",):
            return run_streaming(self)
        from foveal.analysis.bench import bench, steps
        from foveal.analysis.sides import chosen
        from foveal.cli.threads import use_threads
        from foveal.cli.waiting import bar
        from foveal.tasks.run_folder import write_json
        from foveal.viz.roofline import draw_roofline

        title, sides = chosen([name for name in self.names if "=" not in name] or ["layers"])
        setting = self._setting()
        check_plot(self.plot)
        check_folder("--out", self.out)
        use_threads(self.threads)
        with counting_warnings(), bar("measuring", steps(sides), quiet=self.json) as watch:
            result = bench(
                title, sides, setting, seconds=self.seconds, channels_last=self.channels_last, watch=watch
            )  # fmt: skip
        records = _plain(result, self.channels_last)
        if self.json:
            print(json.dumps(records, indent=1))
        else:
            print_bench(result, records["environment"])
        if self.out is not None:
            write_json(Path(self.out), records)
            print_written(self.out, quiet=self.json)
        verdict = _verdict(result)
        if self.plot is not None:
            draw_roofline(result, self.plot)
            print_written(self.plot, quiet=self.json)
        return verdict

    def _setting(self) -> Setting:
        import torch

        from foveal.analysis.sides import Setting
        from foveal.analysis.target import check_size, parse_options
        from foveal.errors import OptionError

        if self.device not in ("cpu", "cuda"):
            raise OptionError(f"bench: --device must be cpu or cuda, got {self.device!r}.")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise OptionError("bench: --device cuda needs a GPU that torch sees, and there is none. Use --device cpu.")
        options = parse_options([name for name in self.names if "=" in name])
        size, channels = check_size(self.size or (28, 28)), 64 if self.channels is None else self.channels
        return Setting(channels, size, self.batch, torch.device(self.device), options)


def parse(given: Sequence[str]) -> Any:
    """The command; those that measure a recipe have its options too."""
    import tyro

    if given[:1] == ["data"]:
        from foveal.cli.bench_data import parse as parse_data

        return parse_data(given[1:])
    if given[:1] == ["training"]:
        from foveal.cli.bench_training import parse as parse_training

        return parse_training(given[1:])
    if given[:1] == ["points"]:
        from foveal.cli.bench_points import parse as parse_points

        return parse_points(given[1:])
    return tyro.cli(Bench, prog="foveal bench", description=ABOUT, args=given, config=(tyro.conf.FlagCreatePairsOff,))


def _verdict(result: Result) -> int:
    """A side that computes something else is an error, told after all that could be measured."""
    from foveal.errors import FovealError

    wrong = [side for side in result.sides if side.wrong]
    if wrong:
        raise FovealError(f"bench: {wrong[0].name} was not timed: {wrong[0].reason}.")
    if all(side.forward_ms is None for side in result.sides):
        raise FovealError(f"bench: no side could be measured; {result.sides[0].name}: {result.sides[0].reason}")
    return 0


def _plain(result: Result, channels_last: bool) -> dict[str, Any]:
    from foveal.kernels.cpu import WHY_NOT, instruction_set
    from foveal.tasks.run_folder import environment

    kernels = instruction_set() or f"none: {WHY_NOT}"
    told = {**environment(), "cpu_kernels": kernels, "layout": "channels last" if channels_last else "channels first"}
    return {"environment": told, **asdict(result)}


def print_sides(as_json: bool) -> int:
    """The two tables that a comparison is picked from."""
    from rich.console import Console
    from rich.table import Table

    from foveal.analysis.sides import SIDES, SUITES

    if as_json:
        told = {
            "suites": {s.name: s.sides for s in SUITES.values()},
            "sides": {s.name: s.about for s in SIDES.values()},
        }
        print(json.dumps(told, indent=1))
        return 0
    table = Table(box=None, show_header=False, pad_edge=False)
    for title, rows in (("suites", SUITES.values()), ("sides", SIDES.values())):
        table.add_row(f"[bold]{title}")
        for row in rows:
            table.add_row(row.name, row.about)
    table.add_row("LAYER:BACKEND", "a layer of foveal by one of its backends; see foveal info")
    Console(highlight=False).print(table)
    return 0


def print_bench(result: Result, told: dict[str, Any]) -> None:
    """What was measured where, a row a side, and why what is missing is missing."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    batch, channels, *space = result.shape
    sizes = f"batch {batch}, {channels} channels, {' x '.join(map(str, space))}, {told['layout']}, float32"
    console.print(f"{result.title}: {sizes}", markup=False)
    where = f"{result.device}, threads {result.threads}, torch {told['packages']['torch']}, foveal {told['foveal']}"
    console.print(f"{where}, kernels {told['cpu_kernels']}", markup=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("side", overflow="fold")
    for heading in ("forward\nms (quartiles)", "ratio", "training\nms (quartiles)", "ratio", "MiB\nfwd", "MiB\ntrain"):
        table.add_column(heading, justify="right", no_wrap=True)
    for side in result.sides:
        table.add_row(side.name, *_times(side.forward_ms), *_times(side.training_ms), *_memory(side))
    console.print(table)
    for line in _notes(result):
        console.print(line, markup=False)


def _times(timing: Timing | None) -> list[str]:
    from foveal.cli.units import short

    if timing is None:
        return ["-", "-"]
    return [f"{short(timing.median)} ({short(timing.q1)}-{short(timing.q3)})", short(timing.ratio)]


def _memory(side: Measured) -> list[str]:
    from foveal.cli.units import short

    sizes = (side.forward_peak_bytes, side.training_peak_bytes)
    return ["-" if size is None or side.forward_ms is None else short(size / 2**20) for size in sizes]


def _notes(result: Result) -> list[str]:
    errors = [side.error for side in result.sides if side.error is not None and not side.wrong]
    alone = [side.name for side in result.sides if side.error is None and side.forward_ms is not None]
    timed = [side.forward_ms.rounds for side in result.sides if side.forward_ms is not None]
    lines = []
    if errors:
        lines.append(
            f"Sides that agree with the definition, gradients too: {len(errors)}; worst error {max(errors):.0e}."
        )
    if alone:
        lines.append(f"Without a definition here, checked to be finite: {', '.join(alone)}.")
    if timed:
        lines.append(f"Medians of {_range(timed)} rounds in turns; ratios within a round, to {timed_first(result)}.")
    lines += [f"{side.name}: not timed: {side.reason}" for side in result.sides if side.reason is not None]
    lines += [f"{side.name}: no training: {side.training_reason}" for side in result.sides if side.training_reason]
    return lines


def _range(rounds: Sequence[int]) -> str:
    return f"{min(rounds)} to {max(rounds)}" if min(rounds) < max(rounds) else str(max(rounds))


def timed_first(result: Result) -> str:
    """The side that ratios are to."""
    return next(side.name for side in result.sides if side.forward_ms is not None)
