"""``foveal bench points``: clouds of many points."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from foveal.cli.said import check_folder, print_written

if TYPE_CHECKING:
    from foveal.analysis.point_rates import CloudWork

ABOUT = """What a large cloud takes: sampling, neighbours, and whole networks, one cloud at a time.

examples:
  foveal bench points
  foveal bench points --points 65536 --threads 1 --out clouds.json
"""


@dataclass(frozen=True)
class BenchPoints:
    """The options of ``bench points``."""

    points: int = 16384
    """Points of the cloud."""
    neighbours: int = 32
    """Of each point."""
    threads: int | None = None
    """Threads of torch; all cores where left out."""
    device: str = "cpu"
    """cpu, or cuda."""
    json: bool = False
    """Print the records as JSON instead of a table."""
    out: str | None = None
    """Write the records as JSON into this file, beside the table."""

    when_interrupted = "Nothing was written."

    def run(self) -> int:
        from foveal.analysis.point_rates import PIECES, cloud_work
        from foveal.cli.threads import use_threads
        from foveal.cli.waiting import bar
        from foveal.tasks.run_folder import environment, write_json

        self._check()
        use_threads(self.threads)
        with bar("measuring", PIECES, quiet=self.json) as watch:
            found = cloud_work(self.points, neighbours=self.neighbours, device=self.device, watch=watch)
        told = {"points": self.points, "neighbours": self.neighbours, "device": self.device}
        records: dict[str, Any] = {"environment": environment(), **told, "work": [asdict(work) for work in found]}
        if self.json:
            print(json.dumps(records, indent=1))
        else:
            print_work(self.points, found)
        if self.out is not None:
            write_json(Path(self.out), records)
            print_written(self.out, quiet=self.json)
        return 0

    def _check(self) -> None:
        import torch

        from foveal.errors import OptionError

        check_folder("--out", self.out)
        if self.neighbours < 1:
            raise OptionError(f"bench points: --neighbours must be at least 1, got {self.neighbours}.")
        if self.device not in ("cpu", "cuda") or (self.device == "cuda" and not torch.cuda.is_available()):
            raise OptionError(
                f"bench points: --device must be cpu, or cuda where torch sees a GPU, got {self.device!r}."
            )


def parse(given: Sequence[str]) -> BenchPoints:
    """The command of these arguments."""
    config = (tyro.conf.FlagCreatePairsOff,)
    return tyro.cli(BenchPoints, prog="foveal bench points", description=ABOUT, args=given, config=config)


def print_work(points: int, found: list[CloudWork]) -> None:
    """A row for each piece of work."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"a cloud of {points:,} points", style="bold")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("work")
    for heading in ("seconds", "peak MiB", "all pairs MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for work in found:
        sizes = (f"{work.peak_bytes / 2**20:,.0f}", f"{work.pairs_bytes / 2**20:,.0f}")
        table.add_row(work.name, f"{work.seconds:.2f}", *sizes)
    console.print(table)
    console.print("All pairs: one float32 for each pair of points that is looked at; many are met in slices.")
