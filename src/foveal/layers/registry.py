"""The one table of attention layers. What is not in it does not exist for the contract suite, docs and commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from foveal.errors import NoMatchError
from foveal.functional.dot_product import dot_product_attention
from foveal.functional.efficient import efficient_attention
from foveal.functional.explicit import explicit_attention
from foveal.functional.external import external_attention
from foveal.functional.local import local_attention
from foveal.layers.augmented import AugmentedAttention
from foveal.layers.base import AttentionLayer
from foveal.layers.efficient import EfficientAttention
from foveal.layers.explicit import ExplicitAttention
from foveal.layers.external import ExternalAttention, MultiHeadExternalAttention
from foveal.layers.local import LocalAttention
from foveal.layers.local_stem import LocalAttentionStem
from foveal.layers.non_local import NonLocal


@dataclass(frozen=True)
class Row:
    """One mechanism as a layer."""

    name: str
    layer: type[AttentionLayer]
    operation: Callable[..., Tensor]
    paper: str
    place: str
    cost: Callable[[Any, tuple[int, ...]], int]
    """Multiply-adds of one forward, from a layer and a map's size."""


_SASA = "Ramachandran et al., Stand-Alone Self-Attention in Vision Models, 2019"
_EA = "Shen et al., Efficient Attention: Attention with Linear Complexities, 2018"
_EXTERNAL = "Guo et al., Beyond Self-attention: External Attention using Two Linear Layers, 2021"
_EXPATT = "Tan et al., Explicitly Modeled Attention Maps for Image Classification, 2020"
_AA = "Bello et al., Attention Augmented Convolutional Networks, 2019"
_NL = "Wang et al., Non-local Neural Networks, 2018"

REGISTRY: tuple[Row, ...] = (
    Row("local", LocalAttention, local_attention, _SASA, "section 3, equations 2 and 3", LocalAttention.macs),
    Row("local_stem", LocalAttentionStem, dot_product_attention, _SASA, "section 3.2", LocalAttentionStem.macs),
    Row("efficient", EfficientAttention, efficient_attention, _EA, "section 3.2", EfficientAttention.macs),
    Row("external", ExternalAttention, external_attention, _EXTERNAL, "section 3.2", ExternalAttention.macs),
    Row(
        "multi_head_external",
        MultiHeadExternalAttention,
        external_attention,
        _EXTERNAL,
        "section 3.3",
        MultiHeadExternalAttention.macs,
    ),
    Row("explicit", ExplicitAttention, explicit_attention, _EXPATT, "equations 4 to 12", ExplicitAttention.macs),
    Row("augmented", AugmentedAttention, dot_product_attention, _AA, "section 3, eq. 1 to 5", AugmentedAttention.macs),
    Row("non_local", NonLocal, dot_product_attention, _NL, "sections 3.2 and 3.3", NonLocal.macs),
)


def row(name: str) -> Row:
    """The row of this name; raises NoMatchError listing the names."""
    for candidate in REGISTRY:
        if candidate.name == name:
            return candidate
    raise NoMatchError(f"registry: there is no layer {name!r}. There are {', '.join(r.name for r in REGISTRY)}.")
