"""The figures of the papers as records: which image, which map over it, which points. ``foveal.viz`` draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from foveal.errors import NoMatchError
from foveal.seeing import Captured, Maps, capture

Array = npt.NDArray[np.float64]
Point = tuple[int, int]
FINE = 7  # rows and columns from which on a map shows where something is


@dataclass(frozen=True)
class Picture:
    """An image with a map over it; without either the other alone. ``heat`` is ``(rows, columns)``, at least 0."""

    title: str
    image: Array | None
    heat: Array | None = None
    points: tuple[Point, ...] = ()
    colours: tuple[int, ...] = ()
    """Which colour of a list each point has."""
    contour: bool = True
    top: float | None = None
    """The value at the end of the scale; the map's own largest where None."""
    note: str = ""


@dataclass(frozen=True)
class Sheet:
    """Rows of pictures under one title; ``caption`` says which layers were asked."""

    title: str
    rows: tuple[tuple[Picture, ...], ...]
    caption: str


def seen(model: nn.Module, x: Tensor, where: str = "*") -> Maps:
    """Every map of one image ``(1, channels, rows, columns)``, in evaluation mode."""
    was = model.training
    try:
        with torch.no_grad(), capture(model.eval(), where) as maps:
            model(x)
    finally:
        model.train(was)
    return maps


def chosen(maps: Maps, mechanism: str | None = None) -> Captured:
    """The last layer whose map has ``FINE`` positions an axis, or, where none has, the one with the largest map.

    Raises:
        NoMatchError: there is no layer of the mechanism.
    """
    placed = [call for call in maps.values() if not call.grid.nowhere] or list(maps.values())
    calls = [call for call in placed if mechanism is None or call.mechanism.endswith(mechanism)]
    if not calls:
        there = ", ".join(sorted({call.mechanism for call in maps.values()}))
        raise NoMatchError(f"figure: {mechanism} attention is wanted, the layers have {there}. Use another --model.")
    return max(reversed(calls), key=lambda call: min(FINE, *call.size))


def query_points(model: nn.Module, x: Tensor, image: Array, points: Sequence[Point], where: str = "*") -> Sheet:
    """Efficient Attention, figure 1: the image with its query points, then what each looks at, heads averaged."""
    call = chosen(seen(model, x, where))
    first = Picture("query points", image, None, tuple(points), tuple(range(len(points))))
    row = [_looks(f"point {n + 1}", image, call, point, n) for n, point in enumerate(points)]
    return Sheet("What each point looks at", ((first, *row),), _caption(call))


def marked_pixels(
    models: Mapping[str, nn.Module], x: Mapping[str, Tensor], image: Array, points: Sequence[Point], where: str = "*"
) -> Sheet:
    """ExpAtt, figure 1: one row a marked pixel, one column a model, each with the image as it takes it."""
    calls = {name: chosen(seen(model, x[name], where)) for name, model in models.items()}
    rows = []
    for line, point in enumerate(points):
        first = Picture("marked pixel" if line == 0 else "", image, None, (point,), (0,))
        rows.append((first, *(_looks(name if line == 0 else "", image, own, point, 0) for name, own in calls.items())))
    told = "; ".join(f"{name}: {_caption(call)}" for name, call in calls.items())
    return Sheet("Attention of marked pixels", tuple(rows), told)


def shared_maps(
    model: nn.Module, x: Sequence[Tensor], images: Sequence[Array], mechanism: str, count: int = 3, where: str = "*"
) -> Sheet:
    """Efficient Attention, figure 5, and External attention, figure 4: maps that all queries of an image share.

    Of the layer's maps those are shown that vary most over the first image; the same ones for every image.
    """
    calls = [chosen(seen(model, one, where), mechanism) for one in x]
    maps = [_shared(call) for call in calls]
    heads, number = maps[0].shape[:2]
    spread = (maps[0].flatten(2).std(2) / maps[0].flatten(2).mean(2).clamp_min(1e-12)).flatten()
    best = spread.argsort(descending=True)[:count].tolist()
    kind = "global map" if mechanism == "efficient" else "slot"
    rows = []
    for line, (image, call, own) in enumerate(zip(images, calls, maps, strict=True)):
        row = [Picture("image" if line == 0 else "", image)]
        for place in best:
            head, index = divmod(place, number)
            title = f"{kind} {index}" + (f", head {head}" if heads > 1 else "") if line == 0 else ""
            row.append(Picture(title, image, _on_image(call, own[head, index])))
        rows.append(tuple(row))
    title = "Global attention maps" if mechanism == "efficient" else "Attention maps of memory slots"
    return Sheet(title, tuple(rows), _caption(calls[0]))


def slots_by_head(model: nn.Module, x: Tensor, image: Array, slots: Sequence[int], where: str = "*") -> Sheet:
    """External attention, figure 5: for each of these rows of M_k, where every head of the layer answers to it."""
    maps = seen(model, x, where)
    call = next((one for one in reversed(list(maps.values())) if "slot_maps" in one.parts()), None)
    if call is None:
        chosen(maps, "external")
    assert call is not None
    own = _shared(call)
    wide = min(8, own.shape[0])
    rows: list[tuple[Picture, ...]] = []
    for slot in slots:
        if not 0 <= slot < own.shape[1]:
            raise NoMatchError(f"figure: {call.name} has the slots 0 to {own.shape[1] - 1}, got {slot}.")
        cells = [
            Picture(f"slot {slot}, head {head}", image, _on_image(call, own[head, slot]), contour=False)
            for head in range(own.shape[0])
        ]
        rows += [tuple(cells[start : start + wide]) for start in range(0, len(cells), wide)]
    return Sheet("What each head finds for a row of the key memory", tuple(rows), _caption(call))


def offset_logits(model: nn.Module, x: Tensor, where: str = "*") -> Sheet:
    """Stand-alone self-attention: mean of q.r over all queries, one window a head, from the least of all."""
    call = chosen(seen(model, x, where), "local")
    if "offset_logits" not in call.parts():
        raise NoMatchError(f"figure: {call.name} has no relative positions. Use a layer with them.")
    logits = call.parts()["offset_logits"]
    spread = float(logits.amax() - logits.amin())
    cells = [
        Picture(f"head {head}", None, as_array(window - logits.amin()), contour=False, top=spread)
        for head, window in enumerate(logits)
    ]
    rows = tuple(tuple(cells[start : start + 8]) for start in range(0, len(cells), 8))
    return Sheet("Relative-offset logits q.r by head", rows, f"{_caption(call)}; range {spread:.3g} over all heads")


def learned_radii(model: nn.Module) -> dict[str, list[float]]:
    """ExpAtt, figure 3: the radius of each explicit layer, in the order of the model, one value a head or one.

    Raises:
        NoMatchError: the model has no learned radius.
    """
    from foveal.layers import ExplicitAttention

    found = {
        name: module.radius.detach().reshape(-1).tolist()
        for name, module in model.named_modules()
        if isinstance(module, ExplicitAttention) and module.radius is not None
    }
    if not found:
        raise NoMatchError("figure: no layer of the model learns a radius. Use foveal_explicit_resnet50, say.")
    return found


@dataclass(frozen=True)
class Requirement:
    """What both modules need for one size of map: floats held, and operations, two a multiply-accumulate."""

    size: str
    efficient_floats: float
    non_local_floats: float
    efficient_operations: float
    non_local_operations: float


def requirements() -> list[Requirement]:
    """Efficient Attention, figure 3: table 1's formulas at the sizes that the text speaks of."""
    from foveal.analysis.ledger import complexity as table

    spaces = ((28, 28, 4), (64, 64), (128, 128), (256, 256), (64, 64, 32))
    sizes = [table.Sizes(space, 64, 32) for space in spaces]
    return [
        Requirement(
            "x".join(map(str, s.space)), table.efficient_floats(s), table.non_local_floats(s),
            table.efficient_operations(s), table.non_local_operations(s),
        )
        for s in sizes
    ]  # fmt: skip


def _looks(title: str, image: Array, call: Captured, point: Point, colour: int) -> Picture:
    over = heat(call, point)
    mean = float(over.mean())
    note = f"peak {over.max() / mean:.2f} times even" if mean > 0 else "no weight"
    return Picture(title, image, over, (point,), (colour,), note=note)


def heat(call: Captured, point: Point) -> Array:
    """What a pixel looks at, heads averaged, at the resolution of the image."""
    return as_array(call.at_pixel(point, average=True, smooth=True)[0])


def _shared(call: Captured) -> Tensor:
    parts = call.parts()
    return (parts["global_maps"] if "global_maps" in parts else parts["slot_maps"])[0]


def _on_image(call: Captured, maps: Tensor) -> Array:
    return as_array(call.grid.on_image(maps, smooth=True))


def _caption(call: Captured) -> str:
    size = "x".join(map(str, call.size))
    return f"{call.name}, {call.mechanism}, {call.heads} head{'s' * (call.heads > 1)}, {size} positions"


def as_array(values: Tensor) -> Array:
    """A tensor as numbers for drawing."""
    array: Array = values.detach().double().cpu().numpy()
    return array


def as_image(picture: Tensor) -> Array:
    """``(channels, rows, columns)`` in 0 to 1 as ``(rows, columns)`` or ``(rows, columns, 3)``."""
    array = as_array(picture.clamp(0, 1))
    return array[0] if len(array) == 1 else array.transpose(1, 2, 0)
