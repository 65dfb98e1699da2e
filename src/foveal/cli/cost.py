"""``foveal cost``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from foveal.cli.said import check_plot, counting_warnings, print_warning, print_written

if TYPE_CHECKING:
    from foveal.analysis.cost import Cost as Counted
    from foveal.analysis.cost import Growth, ModuleCost
    from foveal.analysis.target import Target

ABOUT = """Count what a model or a layer costs, without running it: parameters, multiply-accumulates, activation memory.

examples:
  foveal cost resnet50
  foveal cost local --channels 128 --size 28 28 --train
  foveal cost LocalAttention kernel_size=5 heads=4 --batch 8
  foveal cost non_local --sizes 32 64 128 256 --plot growth.png
  foveal cost vit_small_patch16_224 dynamic_img_size=True --sizes 224 448 --train
  foveal cost torchvision.models:resnet18 num_classes=10 --depth 2
  foveal cost mask_rcnn backbone=resnet101 --size 800 1333
  foveal cost torchvision.models.detection:maskrcnn_resnet50_fpn weights=None weights_backbone=None
  foveal cost pct --size 2048
"""


@dataclass(frozen=True)
class Cost:
    """The options of ``cost``."""

    target: Positional[str]
    """A layer (local or LocalAttention), a model of timm or of foveal (pct or mask_rcnn, too), or
    package.module:callable."""
    options: Positional[tuple[str, ...]] = ()
    """Options of its constructor, name=value, right after the name."""
    size: tuple[int, ...] = ()
    """Rows and columns (or depth, rows and columns); one number is a square, or points. The model's own where left
    out."""
    sizes: tuple[int, ...] = ()
    """Sides of squares, or numbers of points: how the cost grows, with its exponent in the number of positions."""
    batch: int = 1
    """Samples."""
    channels: int | None = None
    """Of the map; 64 for a layer, what a model has by itself."""
    train: bool = False
    """Forward and backward in training mode, and the memory of what is saved between them."""
    depth: int = 1
    """Levels of modules that are shown; what lies deeper is in the sums of the level above."""
    json: bool = False
    """Print all modules as JSON instead of a table."""
    plot: str | None = None
    """Draw cost against size into this file, .svg or .png; needs --sizes."""

    when_interrupted = "Nothing was written."

    def run(self) -> int:
        from foveal.analysis.cost import cost
        from foveal.analysis.target import check_size, find, parse_options
        from foveal.errors import OptionError

        if self.depth < 0:
            raise OptionError(f"cost: --depth must be at least 0, got {self.depth}. Use 0 for the total alone.")
        if self.plot is not None and not self.sizes:
            raise OptionError("cost: --plot draws cost against size, and there is no list. Add --sizes 32 64 128, say.")
        check_plot(self.plot)
        if self.size:
            # Before a model is made.
            check_size(self.size)
        target = find(self.target, channels=self.channels, options=parse_options(self.options))
        size = target.sized(self.size)
        with counting_warnings() as warned:
            counted = cost(target, size, batch=self.batch, train=self.train)
            grown = self._growth(target) if self.sizes else None
        if self.json:
            print(json.dumps(_plain(counted, grown), indent=1))
        else:
            print_cost(counted, self.depth)
            if grown is not None:
                print_growth(grown)
        for line in warned:
            print_warning(line)
        if self.plot is not None and grown is not None:
            from foveal.viz.growth import draw_growth

            draw_growth(grown, self.plot)
            print_written(self.plot, quiet=self.json)
        return 0

    def _growth(self, target: Target) -> Growth:
        from foveal.analysis.cost import growth
        from foveal.cli.waiting import bar

        sizes = [target.sized((side,)) for side in self.sizes]
        with bar("counting", len(sizes), quiet=self.json) as watch:
            return growth(target, sizes, batch=self.batch, train=self.train, watch=watch)


def _plain(counted: Counted, grown: Growth | None) -> dict[str, Any]:
    import torch

    import foveal

    return {
        "unit": "macs are multiply-accumulates; a FLOP count is twice that; memory is in bytes",
        "versions": {"foveal": foveal.__version__, "torch": torch.__version__},
        **asdict(counted),
        "growth": None if grown is None else asdict(grown),
    }


def print_cost(counted: Counted, depth: int) -> None:
    """Totals in words, the check, and the table of modules."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    for line in _summary(counted):
        console.print(line, markup=False)
    shown = [row for row in counted.modules if row.name.count(".") + bool(row.name) <= depth]
    if len(shown) < 2:
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("module", overflow="fold")
    table.add_column("kind", overflow="fold")
    titles = ("parameters", "MACs", *(("backward\nMACs", "saved") if counted.train else ("highest\nmemory",)))
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for row in shown:
        table.add_row(row.name or "(all)", row.kind, *_figures(row))
    console.print(table)
    if not all(row.ran for row in shown):
        console.print("-: not called; the module around it uses its parameters")


def _figures(row: ModuleCost) -> list[str]:
    from foveal.cli.units import count, memory

    if not row.ran:
        return [f"{row.parameters:,}", *["-"] * (2 if row.backward_macs is None else 3)]
    figures = [f"{row.parameters:,}", count(row.macs)]
    if row.backward_macs is not None:
        figures.append(count(row.backward_macs))
    return [*figures, memory((row.peak_bytes if row.saved_bytes is None else row.saved_bytes) or 0)]


def _summary(counted: Counted) -> list[str]:
    from foveal.cli.units import count, fed, memory

    total, mode = counted.total, "training" if counted.train else "inference"
    lines = [
        f"{counted.name}: {fed(counted.inputs)}, {mode}",
        *(f"  {'' if i else 'assumed':18} {line}" for i, line in enumerate(counted.assumed)),
        f"  parameters         {total.parameters:,}",
        f"  forward            {count(total.macs)} MACs = {count(2 * total.macs)} FLOPs",
    ]
    if total.backward_macs is not None:
        lines.append(f"  backward           {count(total.backward_macs)} MACs = {count(2 * total.backward_macs)} FLOPs")
    said = "saved for backward" if counted.train else "highest memory"
    lines.append(f"  {said:18} {memory(counted.memory)} of activations")
    return lines + [f"  {'' if i else 'check':18} {line}" for i, line in enumerate(_checked(counted))]


def _checked(counted: Counted) -> list[str]:
    """Whether the formulas and the count agree, in lines of a terminal."""
    held = counted.check
    if not held.kinds:
        return ["no module has a formula; the dispatcher alone counted"]
    kinds = ", ".join(f"{n} {kind}" for kind, n in held.kinds.items())
    if held.equal:
        lines = [f"equal: {held.formula:,} MACs a sample, by formula and counted", f"in {kinds}"]
    else:
        lines = [f"NOT EQUAL: {held.formula:,} MACs a sample by formula, {held.counted:,} as counted"]
        lines += [
            f"in {', '.join(name or 'the whole' for name in held.wrong[:5])}; element-wise products are not counted"
        ]
    return lines + ([f"{held.rest:,} more were counted in what has no formula"] if held.rest else [])


def print_growth(grown: Growth) -> None:
    """A row a size, the exponents of each step, and those over all sizes."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from foveal.cli.units import count, memory

    console = Console(highlight=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    work, space = ("MACs, forward\n+ backward", "saved") if grown.train else ("MACs", "highest\nmemory")
    for title in ("size", "positions", work, "exponent", space, "exponent"):
        table.add_column(title, justify="right", no_wrap=True)
    for step in grown.steps:
        size = " x ".join(map(str, step.size))
        table.add_row(
            size, f"{step.positions:,}", count(step.macs), _exponent(step.macs_exponent),
            memory(step.memory), _exponent(step.memory_exponent),
        )  # fmt: skip
    table.add_row("all sizes", "", "", _exponent(grown.macs_exponent), "", _exponent(grown.memory_exponent))
    console.print(table)
    console.print("exponent: slope of log cost against log positions, from the size before")


def _exponent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
