"""Images by name: those that ship, the published sets, or a folder with one folder a class."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from foveal.data.options import Augmentation, DataOptions

if TYPE_CHECKING:
    from foveal.data.blending import Blend
    from foveal.data.catalog import NAMES, load, load_options
    from foveal.data.images import ImageData, Split
    from foveal.data.preparation import Preparation

__all__ = [
    "NAMES",
    "Augmentation",
    "Blend",
    "DataOptions",
    "ImageData",
    "Preparation",
    "Split",
    "load",
    "load_options",
]

# Options are plain values that the command line reads before it needs torch; all else brings torch.
_ROOMS = {
    "NAMES": "catalog",
    "load": "catalog",
    "load_options": "catalog",
    "Blend": "blending",
    "ImageData": "images",
    "Split": "images",
    "Preparation": "preparation",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'foveal.data' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"foveal.data.{_ROOMS[name]}"), name)
    return found
