"""The papers' figures for models and images that a user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from foveal.analysis import figures as made
from foveal.analysis.points import marked_points
from foveal.errors import OptionError
from foveal.tasks.shown import sample
from foveal.tasks.trained import Trained

ONE_MODEL = ("efficient-1", "efficient-5", "local-offsets", "external-4", "external-5")
_DEFAULT_IMAGES = {"efficient-5": ("china", "flower"), "external-4": ("china", "flower"), "explicit-1": ("china",)}
_POINTS = {"efficient-1": 5, "explicit-1": 2}


def figure(
    name: str,
    models: Mapping[str, Trained],
    images: Sequence[str] = (),
    *,
    layer: str = "*",
    at: Sequence[str] = (),
    slots: Sequence[int] = (0, 1),
) -> made.Sheet:
    """A figure of maps.

    Args:
        name: ``explicit-1``, ``efficient-1``, ``efficient-5``, ``local-offsets``, ``external-4`` or ``external-5``.
        models: by label; one, but for ``explicit-1``.
        images: files, or names of ``shown.SAMPLES``.
        layer: glob over module names.
        at: pixels ``row,column``; those that stand out where empty.
        slots: rows of M_k for ``external-5``.

    Raises:
        OptionError: too many models or images, or a pixel that is none.
        NoMatchError: the model has no layer of the kind that the figure shows.
        DataError: an image cannot be read.
    """
    if name in ONE_MODEL and len(models) != 1:
        raise OptionError(f"figure: {name} shows one model, got {', '.join(models)}. Give one --model.")
    names = tuple(images) or _DEFAULT_IMAGES.get(name, ("flower",))
    if len(names) > 1 and name not in ("efficient-5", "external-4"):
        raise OptionError(f"figure: {name} shows one image, got {', '.join(names)}. Give one --image.")
    opened = [sample(image) for image in names]
    one = next(iter(models.values()))
    pictures = [one.picture(image) for image in opened]
    sheet = _sheet(name, models, opened, pictures, layer, at, slots)
    return replace(sheet, caption=f"{sheet.caption}. {weights_told(models)}")


def _sheet(
    name: str,
    models: Mapping[str, Trained],
    opened: Sequence[Any],
    pictures: Sequence[Tensor],
    layer: str,
    at: Sequence[str],
    slots: Sequence[int],
) -> made.Sheet:
    one = next(iter(models.values()))
    x = [one.preparation(image)[None].to(one.device) for image in opened]
    arrays = [made.as_image(picture) for picture in pictures]
    if name == "local-offsets":
        return made.offset_logits(one.model, x[0], layer)
    if name == "external-5":
        return made.slots_by_head(one.model, x[0], arrays[0], slots, layer)
    if name in ("efficient-5", "external-4"):
        return made.shared_maps(one.model, x, arrays, "efficient" if name == "efficient-5" else "external", where=layer)
    points = [pixel(text, pictures[0]) for text in at] or marked_points(pictures[0], _POINTS[name])
    if name == "efficient-1":
        return made.query_points(one.model, x[0], arrays[0], points, layer)
    own = {label: trained.preparation(opened[0])[None].to(trained.device) for label, trained in models.items()}
    sizes = {label: tuple(image.shape[2:]) for label, image in own.items()}
    if len(set(sizes.values())) > 1:
        raise OptionError(f"figure: the models take images of different sizes, {sizes}. Give models of one size.")
    return made.marked_pixels(
        {label: trained.model for label, trained in models.items()}, own, arrays[0], points, layer
    )


def pixel(text: str, picture: Tensor) -> made.Point:
    """``row,column`` as a pixel of the picture ``(channels, rows, columns)``."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise OptionError(f"figure: --at wants row,column, got {text!r}. Use 112,56, say.")
    row, column = (int(part) for part in parts)
    if row >= picture.shape[1] or column >= picture.shape[2]:
        size = f"{picture.shape[1]} rows and {picture.shape[2]} columns"
        raise OptionError(f"figure: --at {text} lies outside the image of {size}. Count from 0.")
    return row, column


def weights_told(models: Mapping[str, Trained]) -> str:
    """Where the weights come from, since maps of random ones say nothing of a mechanism."""
    told = {label: trained.weights or "as saved" for label, trained in models.items()}
    if len(set(told.values())) == 1:
        return f"Weights: {next(iter(told.values()))}."
    return "Weights: " + "; ".join(f"{label}, {weights}" for label, weights in told.items()) + "."
