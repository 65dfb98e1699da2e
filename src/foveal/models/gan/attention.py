"""Attention between the blocks: x + gamma attention(x), which starts as the identity.

Papers: Zhang et al., Self-Attention Generative Adversarial Networks (2019), section 3, as StudioGAN has it: queries and
keys of an eighth, values of half of the channels, keys and values max-pooled by 2, no biases, no scale; Guo et al.,
Beyond Self-attention: External Attention using Two Linear Layers (2021), its experiment on generation, which tells
nothing of the unit: that gamma, the 1x1 maps around the memories and spectral norm on all of them stay is our reading.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from foveal.functional.inputs import check_choice
from foveal.layers.base import AttentionLayer
from foveal.layers.external import ExternalAttention
from foveal.layers.non_local import NonLocal
from foveal.models.gan.blocks import started

Attention = Literal["none", "self", "external"]
ATTENTIONS: tuple[Attention, ...] = ("none", "self", "external")


class ScaledAttention(nn.Module):
    """x + gamma attention(x), gamma one number that starts at zero."""

    def __init__(self, attention: AttentionLayer) -> None:
        super().__init__()
        self.attention = attention
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        # A layer reads its weights more than once; the spectral norm is to move on once a forward.
        with parametrize.cached():
            out: Tensor = x + self.gamma * self.attention(x)
        return out


def attention(kind: Attention, channels: int, *, slots: int = 64) -> nn.Module:
    """The unit for maps of so many channels: the identity for ``"none"``.

    Args:
        kind: ``"none"``, ``"self"`` (SAGAN) or ``"external"`` (EAGAN).
        channels: of the map.
        slots: of external attention.
    """
    check_choice("resnet_gan", "attention", kind, ATTENTIONS)
    if kind == "none":
        return nn.Identity()
    return ScaledAttention(_self(channels) if kind == "self" else _external(channels, slots))


def _self(channels: int) -> AttentionLayer:
    eighth, half = max(1, channels // 8), max(1, channels // 2)
    layer = NonLocal(
        channels, key_channels=eighth, value_channels=half, pool=True, norm=False, residual=False, bias=False
    )  # fmt: skip
    for part in (layer.query, layer.key, layer.value, layer.output):
        started(part)
    return layer


def _external(channels: int, slots: int) -> AttentionLayer:
    layer = ExternalAttention(channels, slots=slots, bias=False, norm=False, residual=False, activation=False)
    started(layer.query)
    started(layer.output)
    return started(layer, "memory_key", "memory_value")
