"""One page with everything in it: pictures, layers and the rows of all queries, or of every few where they are many."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import ceil, prod
from pathlib import Path
from typing import Any

import torch

from foveal.analysis.figures import chosen
from foveal.app import answers
from foveal.app.server import PAGE
from foveal.app.shelf import Shelf
from foveal.errors import DataError, NoMatchError
from foveal.seeing import Captured, Maps
from foveal.seeing.capture import means
from foveal.viz.overlay import as_rgb, data_uri, to_bytes

MOST_BYTES = 4_000_000  # of the rows of one layer
MOST_LAYERS = 12
MARK = "null/*embedded*/"


def export(shelf: Shelf, image: str, path: str | os.PathLike[str], *, layer: str = "*") -> int:
    """Write the page; returns its size in bytes.

    Args:
        shelf: models that the page shows.
        image: the one image that it shows.
        path: the file.
        layer: glob over module names; ``*`` takes the last layer of each model with a map fine enough to look at.

    Raises:
        NoMatchError: a model has no such layer.
        DataError: the file cannot be written.
    """
    models = [answers.model_told(shelf, label) for label in shelf.models]
    pictures, layers = {}, {}
    for label in shelf.models:
        shown = shelf.picture(image, label).permute(1, 2, 0).numpy()
        pictures[label] = data_uri(to_bytes(as_rgb(shown)))
        macs = shelf.cost(label)
        layers[label] = [
            {**answers.layer_told(call, macs.get(call.name, 0)), **kept(call)}
            for call in wanted(shelf.maps(image, label), layer, label)
        ]
    told = {"models": models, "image": image, "pictures": pictures, "layers": layers}
    page = PAGE.read_text(encoding="utf-8").replace(MARK, embedded(told), 1)
    target = Path(path)
    part = target.with_name(target.name + ".part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(f"explore: {target} cannot be written: {error.strerror}. Use another path.") from error
    return target.stat().st_size


def embedded(told: Mapping[str, Any]) -> str:
    """JSON that may stand in a script: nothing in it ends the script."""
    return json.dumps(told, allow_nan=False).replace("</", "<\\/").replace("<!--", "<\\!--")


def wanted(maps: Maps, layer: str, label: str) -> list[Captured]:
    """The layers that a page holds."""
    if layer == "*":
        return [chosen(maps)]
    found = [call for name, call in maps.items() if means([layer], name) and not call.grid.nowhere]
    if not found or len(found) > MOST_LAYERS:
        raise NoMatchError(
            f"explore: --layer {layer!r} means {len(found)} layers of {label}, 1 to {MOST_LAYERS} are wanted. It has "
            f"{', '.join(list(maps)[:5])} and so on."
        )
    return found


def kept(call: Captured) -> dict[str, Any]:
    """Rows of as many queries as fit, and the maps that all queries share."""
    positions, step = prod(call.size), 1
    while call.heads * positions * prod(ceil(length / step) for length in call.size) > MOST_BYTES:
        step += 1
    places = torch.cartesian_prod(*(torch.arange(0, length, step) for length in call.size)).tolist()
    rows = torch.cat([chunk[:, 0].float().cpu() for chunk in call.rows(places)])
    told = answers.quantised(rows.flatten(0, 1))
    queries = [ceil(length / step) for length in call.size]
    shared = [part for name, part in call.parts().items() if name.endswith("maps")]
    own = [answers.quantised(head.float().cpu()) for head in shared[0][0]] if shared else None
    small = own is not None and sum(len(head["values"]) for head in own) <= MOST_BYTES
    return {"rows": {"step": step, "queries": queries, **told}, "kept": own if small else None}
