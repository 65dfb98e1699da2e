"""Where a run stands, how it is written down, and how it goes on from there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foveal.data.samples import mix
from foveal.errors import OptionError
from foveal.tasks import checkpoint, distributed, wrapping
from foveal.tasks.agreement import by_main
from foveal.tasks.descent import Descent
from foveal.tasks.generators import generator_states, restore_generators, seed_all
from foveal.tasks.plan import Plan
from foveal.tasks.run_folder import keep_metrics, note


@dataclass
class Position:
    """Whole epochs, steps into the next, and what came out so far."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    """After the last whole epoch."""
    best: float | None = None
    """The largest value of the metric that the plan calls best."""
    sums: dict[str, float] = field(default_factory=dict)
    """Of what this process's steps of the epoch wrote down."""
    counted: dict[str, int] = field(default_factory=dict)
    """Steps in each of these sums."""


def process_seed(seed: int) -> int:
    """The seed of this process's generators: the run's own on the main one."""
    return mix(seed, distributed.rank()) if distributed.rank() else seed


def read(folder: Path) -> checkpoint.Saved | None:
    """The checkpoint to go on from. One that was passed over is said aloud, and noted in the folder."""
    saved = checkpoint.read(folder)
    if saved is not None:
        for line in saved.damage:
            say(folder, f"{line}. The run goes on from {saved.path}.")
    return saved


def begin(folder: Path, saved: checkpoint.Saved | None, descent: Descent) -> Position:
    """The beginning, or the place of a checkpoint whose weights the models have: everything else is put back too."""
    at = Position()
    if saved is not None:
        state = saved.state()
        _check_numerics(folder, state["numerics"], descent)
        descent.load_state(state)
        at = _take_up(state)
    by_main(lambda: keep_metrics(folder, -1 if saved is None else at.epoch))
    return at


def _take_up(state: Mapping[str, Any]) -> Position:
    at, processes = Position(**state["position"]), state["processes"]
    if len(processes) == distributed.world():
        mine = processes[distributed.rank()]
        at.sums, at.counted = mine["sums"], mine["counted"]
        restore_generators(mine["generators"])
        return at
    # Each gets the mean of the sums that there were, so that the mean over all is what it was.
    names = {name for process in processes for name in process["sums"]}
    at.sums = {name: sum(process["sums"].get(name, 0.0) for process in processes) / len(processes) for name in names}
    at.counted = {
        name: round(sum(process["counted"].get(name, 0) for process in processes) / len(processes)) for name in names
    }
    seed_all(mix(state["seed"], distributed.rank(), at.epoch, at.step))
    return at


def write(folder: Path, at: Position, descent: Descent) -> None:
    """Write a checkpoint. Every process must call; the main one writes."""
    mine = {"generators": generator_states(), "sums": at.sums, "counted": at.counted}
    state = {
        "position": {**asdict(at), "sums": {}, "counted": {}},
        "seed": descent.plan.seed,
        "processes": distributed.gathered(mine),
        "numerics": numerics(descent),
        **descent.state(),
    }
    weights = {name: wrapping.whole_state(model, descent.plan) for name, model in descent.weighed().items()}
    by_main(lambda: checkpoint.save(folder, weights, state))


def write_best(folder: Path, at: Position, models: Mapping[str, nn.Module], plan: Plan) -> None:
    """Keep what was evaluated as the best. Every process must call; the main one writes."""
    weights = {name: wrapping.whole_state(model, plan) for name, model in models.items()}
    by_main(lambda: checkpoint.save(folder, weights, {"epoch": at.epoch, "metrics": at.metrics}, "best"))


def numerics(descent: Descent) -> dict[str, Any]:
    """What must be the same for the same bits."""
    return {
        "processes": distributed.world(),
        "threads": torch.get_num_threads(),
        "device": descent.device.type,
        "torch": str(torch.__version__),
        "shard": descent.plan.shard,
    }


def _check_numerics(folder: Path, before: Mapping[str, Any], descent: Descent) -> None:
    now = numerics(descent)
    if now["shard"] != before["shard"]:
        raise OptionError(
            f"fit: shard must stay what it was in a run, got {now['shard']} after {before['shard']}. Use another "
            "folder, or the option as it was."
        )
    changed = [f"{name} {before[name]} -> {now[name]}" for name in now if before[name] != now[name]]
    if changed:
        told = f"fit: the run goes on with {', '.join(changed)}; its numbers may differ from here on."
        by_main(lambda: say(folder, told))


def say(folder: Path, text: str) -> None:
    """Warn, and leave a line in the run's folder."""
    warnings.warn(text, stacklevel=2)
    note(folder, text)
