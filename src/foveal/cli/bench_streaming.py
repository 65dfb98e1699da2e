"""``foveal bench streaming``: maps larger than memory."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveal.cli.said import check_folder, print_written

if TYPE_CHECKING:
    from foveal.analysis.large_maps import Large
    from foveal.cli.bench import Bench


def run_streaming(options: Bench) -> int:
    """Measure, print, and write what was asked for."""
    from foveal.analysis.large_maps import NAMES, large_maps
    from foveal.analysis.target import check_size
    from foveal.cli.threads import use_threads
    from foveal.cli.waiting import bar
    from foveal.errors import OptionError
    from foveal.tasks.run_folder import environment, write_json

    wrong = [name for name in options.names[1:] if name not in NAMES]
    if wrong or options.plot is not None:
        told = f"there is no layer {wrong[0]!r}" if wrong else "--plot has nothing to draw here"
        raise OptionError(f"bench streaming: {told}. Give some of {', '.join(NAMES)}, or nothing for all of them.")
    if options.folder is not None and not Path(options.folder).is_dir():
        raise OptionError(f"bench streaming: --folder {options.folder} is no folder. Make it, or leave it out.")
    check_folder("--out", options.out)
    size, channels = check_size(options.size or (8192, 8192)), 16 if options.channels is None else options.channels
    use_threads(options.threads)
    names = options.names[1:] or NAMES
    with bar("streaming", len(names) + 1, quiet=options.json) as watch:
        found = large_maps(size, channels, names=names, folder=options.folder, watch=watch)
    records: dict[str, Any] = {"environment": environment(), "layers": [asdict(layer) for layer in found]}
    if options.json:
        print(json.dumps(records, indent=1))
    else:
        print_streaming(found)
    if options.out is not None:
        write_json(Path(options.out), records)
        print_written(options.out, quiet=options.json)
    return 0


def print_streaming(found: list[Large]) -> None:
    """A row a layer."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console, one = Console(highlight=False), found[0]
    channels, rows, columns = one.shape
    told = f"{rows} x {columns} x {channels} of float32, {one.map_bytes / 1e9:.2f} GB, in a file"
    console.print(f"{told}; private memory limited to {one.limit_bytes / 2**20:.0f} MiB", markup=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("layer")
    for heading in ("seconds", "of all\nthreads", "peak\nMiB", "before\nMiB", "largest\nerror"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in found:
        memory = (f"{layer.peak_bytes / 2**20:.0f}", f"{layer.before_bytes / 2**20:.0f}")
        times = (f"{layer.seconds:.1f}", f"{layer.processor_seconds:.1f}")
        table.add_row(layer.layer, *times, *memory, f"{layer.error:.1e}")
    console.print(table)
    console.print("The error is that of 64 positions against the definition in float64, of the root mean square there.")
