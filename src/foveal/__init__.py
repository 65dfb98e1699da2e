"""foveal: the workbench for attention in vision.

Everything below is loaded when it is first used: operations, layers and grafts need torch alone; ``compare``,
``open_run`` and ``open_models`` bring timm, torchvision and the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from foveal.errors import BackendError, DataError, FovealError, NoMatchError, OptionError, ShapeError

if TYPE_CHECKING:
    from foveal.functional import (
        dot_product_attention,
        efficient_attention,
        explicit_attention,
        external_attention,
        local_attention,
    )
    from foveal.graft import Graft, Site, augment_, insert_, replace_
    from foveal.layers import (
        AttentionLayer,
        AugmentedAttention,
        AugmentedConv,
        EfficientAttention,
        ExplicitAttention,
        ExternalAttention,
        LocalAttention,
        LocalAttentionStem,
        MultiHeadExternalAttention,
        NonLocal,
    )
    from foveal.seeing import capture
    from foveal.tasks.compare import compare
    from foveal.tasks.opened import open_models
    from foveal.tasks.trained import open_run

__version__ = "0.1.0"

__all__ = [
    "AttentionLayer",
    "AugmentedAttention",
    "AugmentedConv",
    "BackendError",
    "DataError",
    "EfficientAttention",
    "ExplicitAttention",
    "ExternalAttention",
    "FovealError",
    "Graft",
    "LocalAttention",
    "LocalAttentionStem",
    "MultiHeadExternalAttention",
    "NoMatchError",
    "NonLocal",
    "OptionError",
    "ShapeError",
    "Site",
    "augment_",
    "capture",
    "compare",
    "dot_product_attention",
    "efficient_attention",
    "explicit_attention",
    "external_attention",
    "insert_",
    "local_attention",
    "open_models",
    "open_run",
    "replace_",
]

_ROOMS = ("analysis", "data", "functional", "graft", "layers", "models", "seeing", "streaming", "tasks", "viz")


def _room(name: str) -> str:
    """The module that holds a public name."""
    if name == "compare":
        return "foveal.tasks.compare"
    if name == "open_run":
        return "foveal.tasks.trained"
    if name == "open_models":
        return "foveal.tasks.opened"
    if name == "capture":
        return "foveal.seeing"
    if name in ("Graft", "Site") or name.endswith("_"):
        return "foveal.graft"
    return "foveal.functional" if name.endswith("_attention") else "foveal.layers"


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"foveal.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'foveal' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_room(name)), name)
    return found


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS, "__version__"})
