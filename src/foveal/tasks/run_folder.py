"""A run is a folder: what was asked, where it ran, what was measured after each epoch, and its checkpoint."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from foveal.errors import DataError
from foveal.tasks.checkpoint import write_flushed

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "numpy", "scikit-learn", "pillow")


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


def append_metrics(folder: Path, line: dict[str, Any]) -> None:
    """Add one line to ``metrics.jsonl``."""
    path = folder / "metrics.jsonl"
    with writing(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def keep_metrics(folder: Path, epochs: int) -> None:
    """Drop the lines of epochs that came after the checkpoint; they will be written again."""
    path = folder / "metrics.jsonl"
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        with writing(path):
            path.write_text("".join(f"{line}\n" for line in lines[:epochs]), encoding="utf-8")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All lines of ``metrics.jsonl``."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


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
