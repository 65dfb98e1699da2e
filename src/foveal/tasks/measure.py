"""Trained networks measured again, by the task that trained them: what ``foveal evaluate`` does but for classification.

Classification has more to say of its classes: see ``foveal.tasks.evaluate``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foveal.tasks.kind import Opened
from foveal.tasks.kinds import kind_of


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        metrics: of the task.
        classes: one record a class, where the task tells classes apart.
        items: how many were measured on.
        word: what those are.
        seconds: reading and answering together.
    """

    metrics: Mapping[str, float]
    classes: list[dict[str, Any]]
    items: int
    word: str
    seconds: float


def measure(opened: Opened, *, data_path: str | None = None, results: Path | None = None) -> Measured:
    """Measure on the validation data of a run.

    Args:
        opened: from ``open_models``.
        data_path: where the data lie now; where the run had them if None.
        results: a file for what was found as the field's servers take it (detection: COCO's results JSON).

    Raises:
        DataError: the data are not there, or not what they should be; or the file cannot be written.
        OptionError: the task has no such file.
    """
    # Which checkpoint would be best does not matter here, and other data may have nothing to choose it by.
    recipe, kind = replace(opened.recipe, best=""), kind_of(opened.recipe)
    if data_path is not None:
        recipe = replace(recipe, data=replace(recipe.data, path=data_path))
    task = kind.task(recipe, kind.load(recipe))
    task.prepare()
    task.models = dict(opened.models)
    begun = time.monotonic()
    with opened.autocast():
        metrics = task.evaluate()
    seconds = time.monotonic() - begun
    if results is not None:
        kind.write_results(task, results)
    items = len(getattr(task, "val", ()))
    return Measured(metrics, kind.by_class(task), items, kind.items, seconds)
