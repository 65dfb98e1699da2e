"""What the page is told, as plain values: JSON with maps as base64 of small numbers."""

from __future__ import annotations

import base64
from typing import Any

import torch
from torch import Tensor

from foveal.app.shelf import Looked, Shelf
from foveal.seeing import Captured


def model_told(shelf: Shelf, label: str) -> dict[str, Any]:
    """A model for the list: what it is and what it costs."""
    trained = shelf.models[label]
    return {
        "label": label,
        "name": trained.name,
        "weights": trained.weights or "as saved",
        "size": trained.preparation.size,
        "parameters": sum(p.numel() for p in trained.model.parameters()),
        "macs": shelf.cost(label)[""],
    }


def layers_told(shelf: Shelf, image: str, label: str) -> list[dict[str, Any]]:
    """The layers of a model in the order that they ran; those whose positions lie on no image cannot be shown."""
    macs = shelf.cost(label)
    placed = {name: call for name, call in shelf.maps(image, label).items() if not call.grid.nowhere}
    return [layer_told(call, macs.get(name, 0)) for name, call in placed.items()]


def layer_told(call: Captured, macs: int) -> dict[str, Any]:
    """One layer: its map's size and where the map lies on the image."""
    parts = call.parts()
    radius = parts["radius"].flatten().tolist() if "radius" in parts else None
    kinds = [name for name in parts if name.endswith("maps")]
    shared = {"kind": kinds[0], "count": parts[kinds[0]].shape[2]} if kinds else None
    return {
        "name": call.name,
        "mechanism": call.mechanism,
        "heads": call.heads,
        "size": list(call.size),
        "image": list(call.grid.image),
        "stride": list(call.grid.stride),
        "offset": list(call.grid.offset),
        "followed": call.grid.followed,
        "radius": radius,
        "shared": shared,
        "macs": macs,
    }


def row_told(looked: Looked) -> dict[str, Any]:
    """Weights of one query in every head."""
    return {
        "position": list(looked.position),
        "heads": looked.row.shape[0],
        "mass": looked.row.flatten(1).sum(1).tolist(),
        **quantised(looked.row),
    }


def quantised(maps: Tensor) -> dict[str, Any]:
    """``(maps, *size)`` as bytes of 0 to 255 times each map's own largest value, which is told beside."""
    flat = maps.flatten(1).clamp_min(0)
    top = flat.amax(1)
    bytes_ = (flat / top.clamp_min(1e-30)[:, None] * 255).round().to(torch.uint8)
    return {"top": top.tolist(), "values": base64.b64encode(bytes_.numpy().tobytes()).decode("ascii")}
