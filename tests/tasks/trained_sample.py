"""A small run of a recipe on digits, and its validation images as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from foveal.data import DataOptions, load
from foveal.tasks.recipe import About, ModelOptions, OptimizerOptions, Recipe
from foveal.tasks.train import train

RECIPE = Recipe(
    about=About(paper="Someone 2020", table="table 1", published={"accuracy": 99.5}),
    data=DataOptions("digits"),
    model=ModelOptions("foveal_resnet_mini", mechanism="local"),
    optimizer=OptimizerOptions(lr=5e-3),
    epochs=2,
    batch_size=96,
    ema=0.5,
)


def trained(folder: Path, recipe: Recipe = RECIPE) -> dict[str, Any]:
    """Train into a folder; returns the result."""
    return train(recipe, folder)


def digit_files(folder: Path) -> list[Path]:
    """Every validation digit as a grey PNG in a folder of its class, in the order of the data set."""
    val, paths = load("digits").val, []
    for n, label in enumerate(val.labels):
        path = folder / str(label) / f"{n:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (val.picture(n)[0] * 255).round().byte().numpy()
        Image.fromarray(pixels).save(path)
        paths.append(path)
    return paths
