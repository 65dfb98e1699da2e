"""Speeds of this machine: measured once in under a minute, kept in the user's cache folder.

A file is for one machine and the software on it: processor or GPU, threads, torch, instruction set of the kernels.
Another of these has another file, so nothing is predicted from speeds that were measured elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from foveal.analysis.calibration_layers import Sample
from foveal.analysis.machine import fastest
from foveal.analysis.operators import Operators, operators
from foveal.analysis.prediction import Speeds, fit
from foveal.cache import cache_folder
from foveal.errors import DataError
from foveal.kernels.cpu import WHY_NOT, instruction_set

FORMAT = 1
SECONDS_A_LAYER = 0.15


@dataclass(frozen=True)
class Place:
    """What speeds depend on."""

    device: str
    processor: str
    cores: int
    threads: int
    torch: str
    foveal: str
    kernels: str

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Calibration:
    """Speeds with the place they were measured at, the number of layers, and the median error on these."""

    place: Place
    speeds: Speeds
    layers: int
    fit_error: float


@dataclass(frozen=True)
class Measured:
    """One layer with its operators and the seconds of its fastest run."""

    sample: Sample
    operators: Operators
    seconds: float


def this_place(device: torch.device | str = "cpu") -> Place:
    """The machine that runs this, with the threads that are set."""
    where = torch.device(device)
    processor = torch.cuda.get_device_name(where) if where.type == "cuda" else _processor()
    kernels = instruction_set() or f"none: {WHY_NOT}"
    return Place(
        where.type, processor, os.cpu_count() or 1, torch.get_num_threads(), torch.__version__, version("foveal"),
        kernels,
    )  # fmt: skip


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def path_of(place: Place) -> Path:
    """The file of a place."""
    return cache_folder() / f"speeds-{place.key}.json"


def measure(
    samples: Sequence[Sample],
    *,
    device: torch.device | str = "cpu",
    seconds: float = SECONDS_A_LAYER,
    watch: Callable[[str], None] = lambda name: None,
) -> list[Measured]:
    """Run layers in inference, on random maps; the fastest run counts, for others only slow it down.

    Args:
        samples: rows of ``calibration_layers``.
        device: where.
        seconds: for each layer; five runs are made in any case.
        watch: told each layer's name before it runs.
    """
    found = []
    for sample in samples:
        watch(sample.name)
        with torch.random.fork_rng(), torch.inference_mode(False):
            layer = sample.build().eval().to(device)
            x = torch.rand(sample.shape).to(device)
        seen = operators(layer, sample.shape, device=device)
        found.append(Measured(sample, seen, time_of(layer, (x,), seconds)))
    return found


def time_of(model: torch.nn.Module, inputs: Sequence[torch.Tensor], seconds: float) -> float:
    """Seconds of the fastest inference."""
    with torch.inference_mode():
        return fastest(lambda: model(*inputs), seconds)


def calibrate(measured: Sequence[Measured], place: Place) -> Calibration:
    """Speeds from measured layers."""
    speeds = fit([(row.operators.rows, row.seconds) for row in measured])
    errors = sorted(abs(speeds.predict(row.operators.rows) / 1e3 / row.seconds - 1) for row in measured)
    return Calibration(place, speeds, len(measured), errors[len(errors) // 2])


def save(calibration: Calibration) -> Path:
    """Write the file of a calibration's place, whole or not at all, and return its path.

    Raises:
        DataError: the folder cannot be written.
    """
    path = path_of(calibration.place)
    content = json.dumps({"format": FORMAT, **asdict(calibration)}, indent=1, allow_nan=False)
    part: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content + "\n")
        os.replace(part, path)
    except OSError as error:
        if part is not None:
            Path(part).unlink(missing_ok=True)
        raise DataError(
            f"advise: the calibration cannot be written to {path}: {error.strerror}. Set XDG_CACHE_HOME to a folder "
            "that can."
        ) from error
    return path


def load(place: Place) -> Calibration | None:
    """The calibration of a place; None where there is none.

    Raises:
        DataError: the file is damaged, or was measured at another place.
    """
    path = path_of(place)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = _parsed(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"advise: the calibration {path} is damaged. Add --calibrate to measure it anew.") from error
    if found.place != place:
        there, here = asdict(found.place), asdict(place)
        differing = ", ".join(
            f"{name} {there[name]!r} instead of {here[name]!r}" for name in here if there[name] != here[name]
        )
        raise DataError(
            f"advise: the calibration {path} was measured elsewhere ({differing}). Add --calibrate to measure it anew."
        )
    return found


def _parsed(content: dict[str, Any]) -> Calibration:
    if content["format"] != FORMAT:
        raise ValueError(f"format {content['format']}")
    seconds = {str(name): float(value) for name, value in content["speeds"]["seconds"].items()}
    if not seconds or any(not math.isfinite(value) or value < 0 for value in seconds.values()):
        raise ValueError("speeds must be numbers, none negative")
    place = Place(**content["place"])
    return Calibration(place, Speeds(seconds), int(content["layers"]), float(content["fit_error"]))
