"""A run is a folder: what was asked, where it ran, what was measured after each epoch, and its checkpoints."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from foveal.errors import DataError
from foveal.tasks.checkpoint import write_flushed

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "numpy", "scikit-learn", "pillow")
VARIABLES = ("FOVEAL_BACKEND", "FOVEAL_CPU_ISA", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG")
METRICS, NOTES = "metrics.csv", "notes.txt"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What is written here may find the disk full; that is then said in a sentence."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"run: {path} could not be written: {error.strerror}. Make room and give the same command again, or use "
            "another --out."
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file that is whole or not there."""
    part = path.with_name(path.name + ".part")
    try:
        with writing(path):
            write_flushed(part, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Read a JSON file; None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"run: {path} is damaged: {error}. Delete it and give the same command again.") from error


def append_metrics(folder: Path, line: Mapping[str, float]) -> None:
    """Add one line to ``metrics.csv``; a metric that was not there before becomes a column."""
    path, known = folder / METRICS, _columns(folder)
    if not set(line) <= set(known):
        write_metrics(folder, [*read_metrics(folder), line])
        return
    with writing(path), open(path, "a", encoding="utf-8", newline="") as file:
        # One write of a whole line: whoever reads meanwhile, or is killed, sees it whole or not at all.
        file.write(_text([[line.get(name, "") for name in known]]))


def write_metrics(folder: Path, lines: Sequence[Mapping[str, float]]) -> None:
    """Write ``metrics.csv`` anew, whole or not at all."""
    path = folder / METRICS
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = _text([names, *([line.get(name, "") for name in names] for line in lines)])
    part = path.with_name(path.name + ".part")
    with writing(path):
        write_flushed(part, text.encode())
        part.replace(path)


def keep_metrics(folder: Path, epochs: int) -> None:
    """Drop the lines of epochs that came after the checkpoint; they will be written again.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / METRICS
    try:
        lines = read_metrics(folder)
    except (OSError, ValueError) as error:
        raise DataError(
            f"run: {path} is damaged: {error}. Delete it to go on without the lines that it holds, and give the same "
            "command again."
        ) from error
    kept = [line for line in lines if line["epoch"] <= epochs]
    if kept and (len(kept) < len(lines) or not path.read_bytes().endswith(b"\n")):
        write_metrics(folder, kept)
    elif not kept:
        path.unlink(missing_ok=True)


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """All whole lines of ``metrics.csv``: a dictionary an epoch, without what was not measured in it.

    Raises:
        ValueError: the file is no table of numbers with an epoch in each line.
    """
    path = folder / METRICS
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]  # without a line that was cut off
    names, *rows = list(csv.reader(whole.splitlines())) or [[]]
    if "epoch" not in names or any(len(row) != len(names) for row in rows):
        raise ValueError("its lines do not have the columns of its first line, epoch among them")
    told = [{name: float(cell) for name, cell in zip(names, row, strict=True) if cell} for row in rows]
    return [{**line, "epoch": int(line["epoch"])} for line in told]


def write_pictures(folder: Path, epoch: int, pictures: Mapping[str, Any]) -> None:
    """Write pictures ``(rows, columns, 3)`` of an epoch by name: ``samples/epoch-0001.png``, say."""
    for name, pixels in pictures.items():
        from foveal.viz.overlay import png

        path = folder / name / f"epoch-{epoch:04d}.png"
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            part = path.with_name(path.name + ".part")
            part.write_bytes(png(pixels))
            part.replace(path)


def note(folder: Path, text: str) -> None:
    """Add a line to ``notes.txt``: what happened to a run that its reader should know."""
    with writing(folder / NOTES), open(folder / NOTES, "a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n")


def _columns(folder: Path) -> list[str]:
    path = folder / METRICS
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return next(csv.reader([file.readline()]), [])


def _text(rows: Sequence[Sequence[object]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def environment() -> dict[str, Any]:
    """Versions, machine, threads and commit."""
    import torch

    import foveal

    cuda = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return {
        "foveal": foveal.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": platform.platform(),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": cuda,
    }


def run_environment() -> dict[str, Any]:
    """``environment.json``: all of ``environment``, processes, command, and what is set to be deterministic."""
    import torch

    from foveal.tasks import distributed

    return {
        **environment(),
        "processes": distributed.world(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "deterministic": {
            "algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn": torch.backends.cudnn.deterministic,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "float32_matmul": torch.get_float32_matmul_precision(),
        },
        "variables": {name: value for name in VARIABLES if (value := os.environ.get(name)) is not None},
    }


def commit() -> str | None:
    """The commit of the source tree that runs, with ``+`` where it has changes; None outside a repository."""
    here = Path(__file__).parent
    try:
        asked = ["git", "-C", str(here), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def cpu() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
