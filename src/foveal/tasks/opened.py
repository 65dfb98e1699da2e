"""Opens the run of any kind of task: its networks with their weights, and what it kept of its data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from foveal.errors import DataError, OptionError
from foveal.tasks.checkpoint import Which
from foveal.tasks.kind import Opened
from foveal.tasks.kinds import CLASSIFICATION, kind_named, recipe_type
from foveal.tasks.opening import CONFIGURATION, load_weights_
from foveal.tasks.plain import from_plain
from foveal.tasks.run_folder import read_json
from foveal.tasks.train import named


def task_of(path: str | os.PathLike[str]) -> str:
    """The name of the task that a run was trained for; a file, or what is no run, counts as classification.

    Raises:
        OptionError: the run's task is not known here.
    """
    place = Path(path) / CONFIGURATION
    config = read_json(place) if Path(path).is_dir() else None
    task = str(config.get("task", CLASSIFICATION)) if isinstance(config, dict) else CLASSIFICATION
    recipe_type(task, str(place))
    return task


def open_models(path: str | os.PathLike[str], *, which: Which = "last") -> Opened:
    """Open a run of ``foveal train`` of whatever task; ``open_run`` opens more, of classification alone.

    Args:
        path: its folder.
        which: the ``last`` weights or the ``best``.

    Raises:
        DataError: there is no run, or a part of it is missing or damaged.
        OptionError: ``which`` is neither.
    """
    if which not in ("last", "best"):
        raise OptionError(f"open_models: which must be last or best, got {which!r}.")
    folder = Path(path)
    config = read_json(folder / CONFIGURATION) if folder.is_dir() else None
    if not isinstance(config, Mapping) or "recipe" not in config:
        raise DataError(
            f"open_models: {folder} is no run: it has no {CONFIGURATION} with a recipe. Give the folder that foveal "
            "train wrote to."
        )
    values: dict[str, Any] = config["recipe"]
    kind = recipe_type(values.get("task", CLASSIFICATION), f"open_models: {folder / CONFIGURATION}")
    recipe = from_plain(kind, values, lambda option: f"open_models: {folder / CONFIGURATION}")
    models = kind_named(recipe.task).networks(recipe, config)
    found, recorded = load_weights_(models, folder, which)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for model in models.values():
        model.to(device).eval()
    return Opened(models, recipe, config, folder, named(recipe.model), found, recorded)
