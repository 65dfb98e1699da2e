"""Finished runs below a folder, as the ledger holds them against published accuracies.

A run is a folder with ``config.json``, ``result.json`` of status ``done`` and ``metrics.csv``. Its model is the name
that its configuration stores: ``model``, with the options of its recipe, or ``backbone`` where its ``mechanism`` is
``none``; a backbone with another mechanism is none of the papers' models. Its data is the last part of ``data``, so
``/data/ImageNet`` and ``imagenet`` are one. Metrics are those of the last epoch, runs that differ in the seed alone are
averaged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from foveal.analysis.ledger import Run
from foveal.errors import DataError
from foveal.tasks.kinds import CLASSIFICATION, RECIPES, kind_named
from foveal.tasks.run_folder import read_json, read_metrics

_SAME = {
    "imagenet1k": "imagenet", "ilsvrc2012": "imagenet", "imagenetshards": "imagenet", "tinyimagenet200": "tinyimagenet"
}  # fmt: skip
# What a recipe must say for its run to be measured as the papers' are: by their network, on what they hold out.
_MEASURED: dict[str, tuple[str, str, Any]] = {
    "generation": ("evaluation", "features", "inception"),
    "segmentation": ("data", "val", None),
    "points": ("data", "held_out", "test"),
}
# What changes no number, beside the seed.
_FREE = {"": ("seed", "about"), "data": ("path", "workers", "verify")}


def finished_runs(folder: str | Path) -> list[Run]:
    """Read every finished run below a folder.

    Raises:
        DataError: the folder does not exist, or holds no finished run.
    """
    top = Path(folder)
    if not top.is_dir():
        raise DataError(f"ledger: --runs {str(folder)!r} is no folder. Give one that foveal has trained into.")
    found: dict[str, list[tuple[Mapping[str, Any], Mapping[str, float]]]] = {}
    for path in sorted(top.rglob("config.json")):
        config, result = read_json(path), read_json(path.with_name("result.json"))
        if not isinstance(config, dict) or not isinstance(result, dict) or result.get("status") != "done":
            continue
        lines = _metrics(path.parent)
        if lines and model_of(config) is not None and task_of(config) in RECIPES:
            # Not the number of lines: some runs have one of before the first step, too.
            key = json.dumps([_but_seed(config), int(lines[-1]["epoch"])], sort_keys=True)
            found.setdefault(key, []).append((config, lines[-1]))
    if not found:
        raise DataError(
            f"ledger: {top} holds no finished run: config.json with a model's name, metrics.csv, and result.json "
            "of status done. Give the folder of a comparison, or one above it."
        )
    # Of a model trained for several lengths the longest comes first, and the ledger takes the first.
    return sorted((_run(alike) for alike in found.values()), key=lambda run: -run.epochs)


def _run(alike: list[tuple[Mapping[str, Any], Mapping[str, float]]]) -> Run:
    """Of runs that differ in the seed alone."""
    config, line = alike[0]
    recipe = config.get("recipe", {})
    return Run(
        str(model_of(config)), data_of(config), _mean(config, [last for _, last in alike]), len(alike),
        int(line["epoch"]), recipe.get("model", {}).get("options", {}), recipe.get("about", {}).get("published", {}),
    )  # fmt: skip


def _but_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a run's numbers beside its seed."""
    told: Mapping[str, Any] = config.get("recipe") or config
    kept = {key: value for key, value in told.items() if key not in _FREE[""]}
    data = kept.get("data")
    if isinstance(data, Mapping):
        kept["data"] = {key: value for key, value in data.items() if key not in _FREE["data"]}
    return kept


def task_of(config: Mapping[str, Any]) -> str:
    """The kind of task; a run of a comparison, which names none, is one of classification."""
    return str(config.get("task", CLASSIFICATION))


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


def _mean(config: Mapping[str, Any], lines: list[Mapping[str, float]]) -> dict[str, float]:
    """In published units: shares in per cent; nothing where another thing was measured than in the papers."""
    group, option, wanted = _MEASURED.get(task_of(config), ("", "", None))
    if config.get("recipe", {}).get(group, {}).get(option) != wanted:
        return {}
    known = kind_named(task_of(config)).metrics
    shown = [name for name in known if all(isinstance(line.get(name), (int, float)) for line in lines)]
    return {name: (100 if known[name].percent else 1) * fmean(float(line[name]) for line in lines) for name in shown}
