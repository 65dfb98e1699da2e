"""One run of a recipe, in a folder of its own.

A folder holds one run::

    recipe.yaml         every option
    config.json         the recipe again, with classes, preparation and what else a trained model needs to answer
    environment.json    versions, machine, threads and commit of the first sitting
    metrics.csv         one line an epoch
    tensorboard/        the same to look at
    checkpoints/        last, the one before, and best
    model.safetensors   weights at the end, of the moving average where there is one; a file for each of several models
    result.json         what it ended with

Given again, the same call goes on where it stopped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch

from foveal.errors import OptionError
from foveal.tasks import checkpoint, distributed
from foveal.tasks.agreement import by_main
from foveal.tasks.kind import Kind
from foveal.tasks.kinds import kind_of
from foveal.tasks.loop import Watch, fit
from foveal.tasks.out_folder import LOCK, alone_in, check_path, make_folder
from foveal.tasks.plain import as_plain
from foveal.tasks.plan import Plan
from foveal.tasks.recipe import NamedModel, Recipe, Training
from foveal.tasks.recipe_check import check, leaves, option
from foveal.tasks.recipe_files import read_recipe, recipe_text
from foveal.tasks.run_folder import note, read_json, read_metrics, run_environment, write_json
from foveal.tasks.schedules import rate
from foveal.tasks.task import Task
from foveal.tasks.yaml_values import read_yaml

RECIPE = "recipe.yaml"
BEGUN = (RECIPE, "environment.json", "config.json")
# What changes no number: where the same data lie, how many processes read them, and where the recipe comes from.
FREE = ("about.", "data.path", "data.workers", "data.verify")
# What a run did whose file is from before there was such an option.
BEFORE = {"data.aspect_ratio_grouping": False}
LOOK = 0.2  # seconds
Say = Callable[[str], None]


def train(
    recipe: Training,
    out: str | os.PathLike[str],
    *,
    watch: Watch | None = None,
    say: Say | None = None,
    save_seconds: float | None = None,
) -> dict[str, Any]:
    """Train a recipe in a folder, from its last checkpoint where there is one.

    Under torchrun every process calls this, with the same arguments.

    Args:
        recipe: everything that decides the numbers.
        out: folder of the run.
        watch: is told the epochs done after each step, with the last metrics, ``step_loss`` and ``rate``.
        say: is told in a line what is done now.
        save_seconds: least time between two checkpoints; changes no number.

    Returns:
        What ``result.json`` holds; the same once more where the run is finished.

    Raises:
        OptionError: the recipe contradicts itself or the data, or the folder holds a run of another one.
        DataError: data, weights or a checkpoint cannot be read, or the folder cannot be written.
        DivergedError: the loss is no longer a number.
        KeyboardInterrupt: it was interrupted; a checkpoint of that moment is there.
    """
    with distributed.together():
        check(recipe)
        return _train(recipe, check_path(out, "train"), watch, say or _silent, save_seconds)


def plan_of(recipe: Training) -> Plan:
    """What the loop needs of a recipe."""
    return Plan(
        recipe.epochs,
        recipe.seed,
        precision=recipe.precision,
        clip=recipe.clip,
        accumulate=recipe.accumulate,
        ema=recipe.ema,
        ema_warmup=recipe.ema_warmup,
        ema_start=recipe.ema_start,
        compile=recipe.compile,
        sync_norm=recipe.sync_norm,
        shard=recipe.shard,
        best=recipe.best or None,
        least=recipe.best in (metrics := kind_of(recipe).metrics) and metrics[recipe.best].least,
    )


def _train(recipe: Training, out: Path, watch: Watch | None, say: Say, save_seconds: float | None) -> dict[str, Any]:
    record: dict[str, Any] | None = by_main(lambda: _held(out, recipe))
    if record is not None:
        say(f"finished: {out} holds the result of this recipe")
        return record
    kind = kind_of(recipe)
    say("reading the data")
    data = kind.load(recipe)
    for line in data.skipped:
        say(f"left out: {line}")
    say("checking that the model fits the data")
    task = kind.task(recipe, data)
    config = config_of(kind, recipe, data)
    by_main(lambda: make_folder(out, "train"))
    with alone_in(out, "train") if distributed.is_main() else nullcontext():
        by_main(lambda: _begin(out, recipe, config))
        say("training")
        plan = plan_of(recipe) if save_seconds is None else replace(plan_of(recipe), save_seconds=save_seconds)
        metrics = fit(task, plan, out, watch=None if watch is None else telling(watch, task, recipe))
        return by_main(lambda: _end(out, recipe, config, metrics))


def config_of(kind: Kind, recipe: Training, data: Any) -> dict[str, Any]:
    """``config.json``: what a trained model needs to answer where neither data nor foveal's recipes are."""
    told = kind.told(recipe, data)
    models = kind.networks(recipe, told)
    return {
        "task": kind.name,
        "model": named(recipe.model),
        "data": recipe.data.name,
        "seed": recipe.seed,
        **told,
        "parameters": sum(weight.numel() for model in models.values() for weight in model.parameters()),
        "data_fingerprint": data.fingerprint,
        "recipe": as_plain(recipe),
    }


def named(model: NamedModel) -> str:
    """A model with the mechanism that was put into it."""
    mechanism = getattr(model, "mechanism", "none")
    return model.name if mechanism == "none" else f"{model.name} with {mechanism}"


def telling(watch: Watch, task: Task, recipe: Training) -> Watch:
    """Adds to the metrics of the last epoch what the present step came to."""
    looked = 0.0
    now: dict[str, float] = {}

    def tell(epochs: float, metrics: Mapping[str, float]) -> None:
        nonlocal looked
        now["rate"] = rate(recipe.schedule, recipe.optimizer.lr, epochs, recipe.epochs)
        # Reading a loss waits for the device, so not every one is read.
        last = getattr(task, "last", None)
        if last is not None and time.monotonic() - looked > LOOK:
            now["step_loss"], looked = float(last), time.monotonic()
        watch(epochs, {**metrics, **now})

    return tell


def _held(out: Path, recipe: Training) -> dict[str, Any] | None:
    """The result that a folder holds, None where its run is not finished.

    Raises:
        OptionError: it holds a run of another recipe, or something else.
    """
    if not out.is_dir():
        return None
    if _failed_at_once(out):
        return None
    if (out / RECIPE).is_file():
        check_same(out, recipe)
    elif any(path.name != LOCK for path in out.iterdir()):
        raise OptionError(f"train: {out} is not empty and holds no run. Use a new folder for --out.")
    record: dict[str, Any] | None = read_json(out / "result.json")
    return record


def _failed_at_once(out: Path) -> bool:
    """Whether a folder holds what a run writes down before it trains, and nothing after it: it binds nobody."""
    there = {path.name for path in out.iterdir()} - {LOCK}
    return there == set(BEGUN)


def check_same(out: Path, recipe: Training) -> None:
    """Raise where a folder's run is of another recipe, with the first option that differs."""
    held, written = dict(leaves(read_recipe(out / RECIPE))), read_yaml(out / RECIPE).lines
    held |= {name: value for name, value in BEFORE.items() if name in held and name not in written}
    for name, value in leaves(recipe):
        if not name.startswith(FREE) and held[name] != value:
            raise OptionError(
                f"train: {out} holds a run of another recipe: its {name} is {held[name]!r}, asked for is {value!r}. "
                f"Use another --out, or {option(name)} as it was."
            )


def _begin(out: Path, recipe: Training, config: dict[str, Any]) -> None:
    """Write down what is trained, or hold it against what is there."""
    from foveal.models.weights import write_whole

    if _failed_at_once(out):
        for name in reversed(BEGUN):
            (out / name).unlink()
    held = read_json(out / "config.json")
    if held is not None and held.get("data_fingerprint") != config["data_fingerprint"]:
        raise OptionError(
            f"train: {out} holds a run on other images ({held.get('data_fingerprint')} instead of "
            f"{config['data_fingerprint']}). Use another --out, or the data as they were."
        )
    # First, since it is what tells this folder from one that holds something else.
    if not (out / RECIPE).is_file():
        write_whole(out / RECIPE, recipe_text(recipe).encode())
    where = run_environment()
    before = read_json(out / "environment.json")
    if before is None:
        write_json(out / "environment.json", where)
    elif changed := [name for name in where if where[name] != before.get(name)]:
        note(out, f"goes on with another {', '.join(changed)} than environment.json has")
    write_json(out / "config.json", config)


def _end(out: Path, recipe: Training, config: Mapping[str, Any], metrics: Mapping[str, float]) -> dict[str, Any]:
    """Write the weights, then the result: where that is, everything is."""
    write_weights(out, recipe, config)
    where = read_json(out / "environment.json")
    record = {
        "status": "done",
        "task": recipe.task,
        "model": config["model"],
        "data": config["data"],
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        "parameters": config["parameters"],
        **metrics,
        **(_best(out, recipe) if recipe.best else {}),
        "environment": where,
        "commit": where["commit"],
    }
    write_json(out / "result.json", record)
    return record


def _best(out: Path, recipe: Training) -> dict[str, float]:
    """The best value of the metric that marks the best checkpoint, and the first epoch that reached it."""
    name, sign = recipe.best, -1 if kind_of(recipe).metrics[recipe.best].least else 1
    # What is measured before the first step is no checkpoint.
    lines = [line for line in read_metrics(out) if name in line and line["epoch"] > 0]
    first = max(lines, key=lambda line: (sign * line[name], -line["epoch"]))
    return {f"best_{name}": first[name], "best_epoch": first["epoch"]}


def write_weights(out: Path, recipe: Training, config: Mapping[str, Any]) -> None:
    """Weights of each model from the last checkpoint, which is whole in whatever way the processes held the models.

    ``foveal.models.load`` makes a classifier again; other networks, and one with a mechanism that a graft has put into
    it, have no name in timm, and their files hold weights alone.
    """
    from foveal.models.weights import save, write_whole

    kind = kind_of(recipe)
    for name, model in kind.networks(recipe, config).items():
        path, state = out / f"{name}.safetensors", checkpoint.weights(out, name=name)
        model.load_state_dict(state)
        if isinstance(recipe, Recipe) and recipe.model.mechanism == "none":
            save(model, path, **{key: config[key] for key in ("classes", "preparation", "data")})
        else:
            write_whole(path, safetensors.torch.save(state, {"format": "pt"}))


def _silent(line: str) -> None: ...
