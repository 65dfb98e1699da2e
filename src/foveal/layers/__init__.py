"""Attention layers: parameters and layout, one file a mechanism, ``registry`` the one table of them."""

from foveal.layers.augmented import AugmentedAttention
from foveal.layers.augmented_conv import AugmentedConv
from foveal.layers.base import AttentionLayer, Like
from foveal.layers.efficient import EfficientAttention
from foveal.layers.explicit import ExplicitAttention
from foveal.layers.external import ExternalAttention, MultiHeadExternalAttention
from foveal.layers.local import LocalAttention
from foveal.layers.local_stem import LocalAttentionStem
from foveal.layers.non_local import NonLocal

__all__ = [
    "AttentionLayer",
    "AugmentedAttention",
    "AugmentedConv",
    "EfficientAttention",
    "ExplicitAttention",
    "ExternalAttention",
    "Like",
    "LocalAttention",
    "LocalAttentionStem",
    "MultiHeadExternalAttention",
    "NonLocal",
]
