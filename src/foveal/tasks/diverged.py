"""What is kept of a training that diverged: the step's batch, for whoever wants to know why."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveal.errors import DivergedError
from foveal.tasks import distributed
from foveal.tasks.losses import Bad
from foveal.tasks.plan import Plan
from foveal.tasks.task import Task

NAME = "diverged.pt"


def keep_batch(task: Task, plan: Plan, folder: Path, epoch: int, bad: Bad) -> Path:
    """Write the parts of a step, drawn again, to ``diverged.pt``: plain values and tensors that ``weights_only`` reads.

    Raises:
        OSError: the disk is full.
    """
    parts = next(iter(task.batches(plan.seed, epoch, bad.step)))
    content = {
        "name": bad.name,
        "value": bad.value,
        "seed": plan.seed,
        "epoch": epoch,
        "step": bad.step,
        "process": distributed.rank(),
        "processes": distributed.world(),
        "parts": [_plain(part) for part in parts],
        "images": _plain(task.identify(plan.seed, epoch, bad.step)),
    }
    path = folder / NAME
    torch.save(content, path)
    return path


def divergence(task: Task, plan: Plan, folder: Path, epoch: int, views: list[Bad | None]) -> DivergedError:
    """The error that every process raises once one has seen a value that is no number; the first to see it keeps its
    batch, as gradients carry it to all others in the step after.
    """
    _, seen = min((bad.step, number) for number, bad in enumerate(views) if bad is not None)
    bad = views[seen]
    assert bad is not None
    kept = None
    if distributed.rank() == seen:
        try:
            kept = f"Its batch is in {keep_batch(task, plan, folder, epoch, bad)}"
        except OSError as error:
            kept = f"Its batch could not be kept: {error.strerror or error}"
    kept = distributed.gathered(kept)[seen]
    return DivergedError(
        f"fit: {bad.name} became {bad.value} in step {bad.step + 1} of epoch {epoch + 1}. {kept}; look at it, or use a "
        "smaller learning rate."
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
