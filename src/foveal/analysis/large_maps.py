"""What attention over maps larger than memory takes: each layer in a fresh process, against definitions in float64.

The map lies in a file and so does the result. A process gets a limit of private memory from the kernel (RLIMIT_DATA: an
allocation beyond it fails; pages of the two files are file cache and do not count), with Python, torch and what they
load, but without what these reserved and never touched. Its peak is the largest private resident memory (RssAnon) seen,
looked at every 5 ms.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foveal.analysis.large_map_definitions import BLOCK, at_points
from foveal.errors import DataError, OptionError

NAMES = ("efficient", "external", "explicit", "explicit-manhattan")
LIMIT = 1 << 30
# Of the limit, for bands and what belongs to them; the rest is for Python and torch.
MEMORY = 9 << 25


@dataclass(frozen=True)
class Large:
    """One layer. ``error`` is the largest, in units of the root mean square of the definition at the same positions.

    ``processor_seconds`` are those of all threads; ``before_bytes`` is what the process held before the layer ran.
    """

    layer: str
    shape: tuple[int, ...]
    map_bytes: int
    seconds: float
    processor_seconds: float
    peak_bytes: int
    before_bytes: int
    limit_bytes: int
    error: float


def large_maps(
    size: Sequence[int],
    channels: int,
    *,
    names: Sequence[str] = NAMES,
    limit: int = LIMIT,
    memory: int = MEMORY,
    samples: int = 64,
    folder: str | Path | None = None,
    watch: Callable[[object], None] = lambda _: None,
) -> list[Large]:
    """Evaluate layers on a map of ``size`` rows and columns; its two files are gone afterwards.

    Args:
        size: rows and columns.
        channels: of the map, float32.
        names: some of ``NAMES``.
        limit: bytes of private memory that a process may have.
        memory: of which for bands and what belongs to them.
        samples: positions that are checked: the corners and random ones.
        folder: where the files lie for the time; the system's temporary folder if not given.
        watch: is told each step as it begins, one a layer and one for the map.

    Raises:
        OptionError: the map is not of two axes, or the system is none that tells private memory.
        DataError: there is no room for the files, or a layer did not stay within the limit.
    """
    if len(size) != 2:
        raise OptionError(
            f"bench streaming: the map has rows and columns, got {len(size)} sizes. Use --size 8192 8192."
        )
    private()
    found = []
    with tempfile.TemporaryDirectory(dir=folder) as held:
        source, out = Path(held) / "map.npy", Path(held) / "result.npy"
        watch("map")
        _check_room(Path(held), 8 * channels * size[0] * size[1])
        make(source, (channels, size[0], size[1]))
        for name in names:
            watch(name)
            told = _measured(name, source, out, limit, memory)
            largest = error(name, source, out, samples)
            found.append(
                Large(name, (channels, *size), source.stat().st_size, **told, limit_bytes=limit, error=largest)
            )
            out.unlink()
    return found


def _check_room(folder: Path, wanted: int) -> None:
    import shutil

    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise DataError(
            f"bench streaming: the map and its result take {wanted / 1e9:.1f} GB, {folder.parent} has "
            f"{free / 1e9:.1f} GB. Use --folder for another place, or a smaller --size."
        )


def layer_of(name: str, channels: int) -> Any:
    """The layer with the sizes of its paper, the same at every call."""
    import torch

    from foveal.layers import EfficientAttention, ExplicitAttention, ExternalAttention

    torch.manual_seed(0)
    if name == "efficient":
        return EfficientAttention(channels, key_channels=64, residual=False).eval()
    if name == "external":
        layer = ExternalAttention(channels, slots=64, residual=False, activation=False).eval()
        norm: Any = layer.norm
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 2)
        return layer
    decay: Any = "manhattan" if name.endswith("manhattan") else "gaussian"
    return ExplicitAttention(channels, heads=8, decay=decay, radius=0.1)


def make(path: Path, shape: tuple[int, int, int]) -> None:
    """Waves with noise, from a seed for every block of rows."""
    channels, height, width = shape
    to = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    across = np.cos(2 * np.pi * np.arange(width, dtype=np.float32) / width)
    wave = np.arange(1, channels + 1, dtype=np.float32)[:, None, None]
    for start in range(0, height, BLOCK):
        rows = np.arange(start, min(start + BLOCK, height), dtype=np.float32)[:, None]
        block = np.random.default_rng([0, start]).standard_normal((channels, len(rows), width), dtype=np.float32)
        to[:, start : start + len(rows)] = block + np.sin(2 * np.pi * wave * rows / height) * across + 0.5
    to.flush()


def _measured(name: str, source: Path, out: Path, limit: int, memory: int) -> dict[str, Any]:
    """Time and peak memory of one layer, in a process of its own."""
    arguments = [name, str(source), str(out), str(limit), str(memory)]
    done = subprocess.run([sys.executable, "-m", __name__, *arguments], capture_output=True, text=True)
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise DataError(f"bench streaming: {name} did not stay within {limit} bytes or failed: {told}")
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def _child(name: str, source: str, out: str, limit: str, memory: str) -> None:
    """What that process does."""
    import resource

    layer = layer_of(name, np.load(source, mmap_mode="r").shape[0])
    from foveal.streaming import run

    most = int(limit) + private("VmData") - private()
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    peak, stop = [private()], threading.Event()

    def look() -> None:
        while not stop.wait(0.005):
            peak[0] = max(peak[0], private())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        before, start, worked = private(), time.perf_counter(), time.process_time()
        run(layer, source, out, memory=int(memory))
        seconds, worked = time.perf_counter() - start, time.process_time() - worked
    finally:
        stop.set()
        watcher.join()
    told = {"seconds": seconds, "processor_seconds": worked, "peak_bytes": max(before, *peak), "before_bytes": before}
    sys.stdout.write(json.dumps(told))


def private(what: str = "RssAnon") -> int:
    """Bytes of private memory of this process that are resident, or of another line of its status.

    Raises:
        OptionError: the system does not tell.
    """
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise OptionError(f"bench streaming: this system does not tell {what} of a process; it runs on Linux.")


def error(name: str, source: Path, out: Path, samples: int) -> float:
    """The largest at the points, in units of the root mean square of the definition there."""
    mapped, result = np.load(source, mmap_mode="r"), np.load(out, mmap_mode="r")
    channels, height, width = mapped.shape
    draw = np.random.default_rng(1)
    points = np.stack([draw.integers(0, height, samples), draw.integers(0, width, samples)])
    points[:, :4] = [[0, 0, height - 1, height - 1], [0, width - 1, 0, width - 1]]
    w = {k: v.double().numpy() for k, v in layer_of(name, channels).state_dict().items()}
    at = mapped[:, points[0], points[1]].astype(np.float64)
    wanted = at_points(name, w, source, points, at)
    got = result[:, points[0], points[1]]
    return float(np.abs(got - wanted).max() / np.sqrt((wanted**2).mean()))


if __name__ == "__main__":
    _child(*sys.argv[1:])
