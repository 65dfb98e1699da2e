"""What can be opened as a trained model, and how each kind tells its classes, preparation and weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from foveal.data.options import DataOptions
from foveal.data.preparation import Preparation
from foveal.errors import DataError, OptionError
from foveal.tasks import checkpoint
from foveal.tasks.averaging import settle_
from foveal.tasks.checkpoint import Which
from foveal.tasks.kinds import CLASSIFICATION
from foveal.tasks.recipe import ModelOptions, Recipe
from foveal.tasks.run_folder import read_json
from foveal.tasks.trained import Trained

WEIGHTS, CONFIGURATION = "model.safetensors", "config.json"
Opener = Callable[[Path, Which], Trained]


def kind_of(source: Path) -> Opener:
    """How to open what lies there.

    Raises:
        DataError: nothing does, or nothing that is a run or a model.
    """
    if source.is_file():
        if source.suffix == ".safetensors":
            return open_file
        raise DataError(f"open_run: {source} is no .safetensors file. Give a run's folder, or a file of models.save.")
    if not source.is_dir():
        raise DataError(f"open_run: there is no run {str(source)!r}. Give the folder that foveal train wrote to.")
    config = read_json(source / CONFIGURATION)
    if isinstance(config, dict):
        if config.get("task", CLASSIFICATION) != CLASSIFICATION:
            raise OptionError(
                f"open_run: {source} is a run of {config['task']}, classification is wanted. Use open_models in "
                "Python, foveal evaluate or foveal predict."
            )
        if "recipe" in config:
            return open_training
        if {"backbone", "mechanism"} <= set(config):
            return open_compared
    if (source / WEIGHTS).is_file():
        return lambda folder, which: open_file(folder / WEIGHTS, which)
    runs = sorted(path.parent.name for path in source.glob("runs/*/config.json"))
    if runs:
        raise DataError(
            f"open_run: {source} holds {len(runs)} runs. Give one of them: {source / 'runs' / runs[0]}, say."
        )
    raise DataError(f"open_run: {source} is no run: it has no config.json. Give the folder that foveal train wrote to.")


def open_file(path: Path, which: Which) -> Trained:
    """A file of ``foveal.models.save``; its metadata may hold ``classes`` and ``preparation``."""
    from foveal.models import Configuration, load

    if which == "best":
        raise OptionError(f"open_run: {path} holds one model, no best one. Leave out --which.")
    model, made = load(path), Configuration.read(path)
    told: Mapping[str, Any] = made.metadata if made is not None else {}
    count = getattr(model, "num_classes", 0)
    classes = tuple(map(str, told.get("classes") or range(count)))
    preparation = _preparation_of_file(path, model, told)
    return Trained(model, classes, preparation, path, made.model if made else "", data=str(told.get("data", "")))


def _preparation_of_file(path: Path, model: nn.Module, told: Mapping[str, Any]) -> Preparation:
    """What was saved with the model, else what timm says of it."""
    if "preparation" in told:
        return Preparation.from_record(told["preparation"])
    shown = getattr(model, "default_cfg", None) or {}
    channels, *size = shown.get("input_size") or (0, 0)
    mean, std = (tuple(shown.get(key) or ()) for key in ("mean", "std"))
    taken = getattr(model, "in_chans", channels)
    if not mean or not std or taken != len(mean):
        raise DataError(
            f"open_run: {path} does not say how images for it are prepared. Save it with "
            "foveal.models.save(model, path, classes=..., preparation=preparation.record())."
        )
    return Preparation(size[-1], shown.get("crop_pct") or 1.0, shown.get("interpolation", "bilinear"), mean, std, taken)


def open_compared(folder: Path, which: Which) -> Trained:
    """One run of a comparison."""
    from foveal.tasks.networks import network
    from foveal.tasks.settings import Settings

    config = read_json(folder / CONFIGURATION)
    classes, preparation = _kept(folder, config)
    known = {entry.name for entry in fields(Settings)}
    given: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in config.items() if key in known}
    settings, mechanism = Settings(**given), config["mechanism"]
    sites = tuple(settings.sites_for(mechanism) or ())
    options = ModelOptions(config["backbone"], mechanism=mechanism, sites=sites, weights=settings.weights)
    model = network(options, classes=len(classes), channels=preparation.channels, size=preparation.size, load=False)
    weights, recorded = load_weights_({"model": model}, folder, which)
    # Its batch size is what evaluation needs of it; sums over batches of another size round differently.
    recipe = Recipe(data=DataOptions(settings.data, size=settings.size), batch_size=settings.batch_size)
    return Trained(model, classes, preparation, folder, _named(options), weights, settings.data, recipe, recorded)


def open_training(folder: Path, which: Which) -> Trained:
    """A run of ``foveal train``."""
    from foveal.tasks.networks import network
    from foveal.tasks.plain import from_plain

    config = read_json(folder / CONFIGURATION)
    classes, preparation = _kept(folder, config)
    recipe = from_plain(Recipe, config["recipe"], lambda option: f"open_run: {folder / CONFIGURATION}")
    model = network(
        recipe.model,
        classes=len(classes),
        channels=preparation.channels,
        size=preparation.size,
        drop_path=recipe.drop_path,
        load=False,
    )
    weights, recorded = load_weights_({"model": model}, folder, which)
    data = recipe.data.path if recipe.data.name == "folder" and recipe.data.path else recipe.data.name
    return Trained(model, classes, preparation, folder, _named(recipe.model), weights, data, recipe, recorded)


def _named(options: ModelOptions) -> str:
    return options.name if options.mechanism == "none" else f"{options.name} with {options.mechanism}"


def _kept(folder: Path, config: Mapping[str, Any]) -> tuple[tuple[str, ...], Preparation]:
    """Classes and preparation that a run keeps."""
    missing = [key for key in ("classes", "preparation") if key not in config]
    if missing:
        raise DataError(
            f"open_run: {folder / CONFIGURATION} has no {' and no '.join(missing)}, as runs of an older foveal have "
            "none. Train it again."
        )
    return tuple(config["classes"]), Preparation.from_record(config["preparation"])


def load_weights_(models: Mapping[str, nn.Module], folder: Path, which: Which) -> tuple[str, dict[str, float]]:
    """Put a run's weights into its models; says which they are, and what the run measured with them.

    A run whose checkpoints were taken away still has the weights of its end.
    """
    from foveal.models.backbones import load_weights_ as load_
    from foveal.models.backbones import read_weights

    saved = checkpoint.read(folder, which)
    if saved is None and which == "last" and all((folder / f"{name}.safetensors").is_file() for name in models):
        for name, model in models.items():
            path = folder / f"{name}.safetensors"
            load_(model, read_weights(path), str(path), new_head=False)
        return "last", {}
    if saved is None:
        raise DataError(f"open_run: {folder} has no {which} checkpoint yet. Train it first, or use the other --which.")
    for line in saved.damage:
        warnings.warn(f"{line}. {saved.path} is used instead.", stacklevel=2)
    state = saved.state()
    at = state.get("position", state)  # the best one was written at the end of an epoch and says no more than that
    step = at.get("step", 0)
    for name, model in models.items():
        average = f"{name}.average"
        averaged = f"{average}.safetensors" in saved.files
        saved.load_into(average if averaged else name, model)
        if averaged and step:
            settle_(model)  # at the end of an epoch that was done before it was measured
    words = f"{which}, epoch {at['epoch']}" + (f" and {step} steps" if step else "")
    return words, {} if step else {key: value for key, value in at["metrics"].items() if not key.startswith("train_")}
