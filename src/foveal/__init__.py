"""foveal: the workbench for attention in vision.

Operations, layers and grafts need torch alone; ``compare`` loads timm, torchvision and the rest when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foveal.errors import (
    BackendError,
    DataError,
    FovealError,
    NoMatchError,
    OptionError,
    ShapeError,
)
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

if TYPE_CHECKING:
    from foveal.tasks.compare import compare as compare

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
    "compare",
    "dot_product_attention",
    "efficient_attention",
    "explicit_attention",
    "external_attention",
    "insert_",
    "local_attention",
    "replace_",
]


def __getattr__(name: str) -> Any:
    if name == "compare":
        from foveal.tasks.compare import compare

        return compare
    raise AttributeError(f"module 'foveal' has no attribute {name!r}")
