"""Finished runs below a folder, as the ledger holds them against published accuracies.

A run is a folder with ``config.json``, ``result.json`` of status ``done`` and ``metrics.csv``. Its model is the name
that its configuration stores: ``model``, or ``backbone`` where its ``mechanism`` is ``none``; a backbone with another
mechanism is none of the papers' models. Its data is the last part of ``data``, so ``/data/ImageNet`` and ``imagenet``
are one. Metrics are those of the last epoch, runs that differ in the seed alone are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from foveal.analysis.ledger import Run
from foveal.errors import DataError
from foveal.tasks.run_folder import read_json, read_metrics

_SAME = {"imagenet1k": "imagenet", "ilsvrc2012": "imagenet", "tinyimagenet200": "tinyimagenet"}
# What is printed of each metric: shares in per cent, everything else as it is.
_TIMES = {"accuracy": 100, "accuracy_top5": 100, "fid": 1, "inception_score": 1}


def finished_runs(folder: str | Path) -> list[Run]:
    """Read every finished run below a folder.

    Raises:
        DataError: the folder does not exist, or holds no finished run.
    """
    top = Path(folder)
    if not top.is_dir():
        raise DataError(f"ledger: --runs {str(folder)!r} is no folder. Give one that foveal has trained into.")
    found: dict[tuple[str, str, int], list[Mapping[str, float]]] = {}
    for path in sorted(top.rglob("config.json")):
        config, result = read_json(path), read_json(path.with_name("result.json"))
        if not isinstance(config, dict) or not isinstance(result, dict) or result.get("status") != "done":
            continue
        model, lines = model_of(config), _comparable(config, _metrics(path.parent))
        if lines and model is not None:
            # Not the number of lines: some runs have one of before the first step, too.
            found.setdefault((model, data_of(config), int(lines[-1]["epoch"])), []).append(lines[-1])
    if not found:
        raise DataError(
            f"ledger: {top} holds no finished run: config.json with a model's name, metrics.csv, and result.json "
            "of status done. Give the folder of a comparison, or one above it."
        )
    # Of a model trained for several lengths the longest comes first, and the ledger takes the first.
    ordered = sorted(found.items(), key=lambda item: -item[0][2])
    return [Run(model, data, _mean(lines), len(lines), epochs) for (model, data, epochs), lines in ordered]


def model_of(config: Mapping[str, Any]) -> str | None:
    """The name in timm, None for a backbone with a mechanism."""
    name = config.get("model") or (config.get("backbone") if config.get("mechanism", "none") == "none" else None)
    return str(name) if name else None


def data_of(config: Mapping[str, Any]) -> str:
    """The data set in small letters and digits."""
    last = Path(str(config.get("data", ""))).name
    plain = "".join(letter for letter in last.lower() if letter.isalnum())
    return _SAME.get(plain, plain)


def _metrics(folder: Path) -> list[dict[str, Any]]:
    try:
        return [line for line in read_metrics(folder) if isinstance(line, dict)]
    except (OSError, ValueError) as error:
        raise DataError(
            f"ledger: {folder / 'metrics.csv'} is damaged: {error}. Take the run away, or train it again."
        ) from error


def _comparable(config: Mapping[str, Any], lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what was measured by another network than that of the papers."""
    measured = config.get("recipe", {}).get("evaluation", {}).get("features")
    if config.get("task") != "generation" or measured == "inception":
        return lines
    return [{key: value for key, value in line.items() if key not in ("fid", "inception_score")} for line in lines]


def _mean(lines: list[Mapping[str, float]]) -> dict[str, float]:
    known = [key for key in _TIMES if all(isinstance(line.get(key), (int, float)) for line in lines)]
    return {key: _TIMES[key] * fmean(float(line[key]) for line in lines) for key in known}
