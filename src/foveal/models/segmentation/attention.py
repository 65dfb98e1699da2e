"""What stands in the place of EANet's unit: the authors' own, another mechanism by name, or nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from foveal.errors import OptionError
from foveal.graft.site import Site
from foveal.layers.base import AttentionLayer
from foveal.layers.efficient import EfficientAttention
from foveal.layers.explicit import ExplicitAttention
from foveal.layers.external import ExternalAttention
from foveal.layers.local import LocalAttention
from foveal.layers.non_local import NonLocal

Build = Callable[[Site], nn.Module]

ATTENTIONS: dict[str, type[AttentionLayer]] = {
    "external": ExternalAttention,
    "efficient": EfficientAttention,
    "nonlocal": NonLocal,
    "local": LocalAttention,
    "explicit": ExplicitAttention,
}
_HEADED = ("local", "explicit")
"""Layers of eight heads by default, which a narrow head may not have the channels for."""


class Residual(nn.Module):
    """x + ReLU(norm(layer(x))), for layers that have no way around them."""

    def __init__(self, layer: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.layer, self.norm = layer, norm

    def forward(self, x: Any) -> Any:
        return x + self.norm(self.layer(x)).relu()


def attention_of(
    attention: str | Build,
    width: int,
    *,
    slots: int,
    norm: Callable[[int], nn.Module],
    before: nn.Module,
    options: Mapping[str, Any],
) -> nn.Module:
    """The layer for a map of ``width`` channels.

    Raises:
        OptionError: there is no such mechanism, or options are given to none.
    """
    site = Site("attention", before, width, width, stride=1, dims=2)
    if options and (attention == "none" or not isinstance(attention, str)):
        raise OptionError("eanet: attention_options are of a mechanism that is named, got none. Leave them out.")
    if attention == "none":
        return nn.Identity()
    if not isinstance(attention, str):
        if not callable(attention):
            raise _unknown(attention)
        return attention(site)
    if attention not in ATTENTIONS:
        raise _unknown(attention)
    if attention == "external":
        return _external(site, slots, norm, options)
    given = {"heads": math.gcd(8, width), **options} if attention in _HEADED else dict(options)
    if attention == "efficient":
        given = {"key_channels": min(64, width), **given}
    layer = ATTENTIONS[attention].from_site(site, **given)
    return Residual(layer, norm(width)) if attention in _HEADED else layer


def _external(site: Site, slots: int, norm: Callable[[int], nn.Module], options: Mapping[str, Any]) -> nn.Module:
    """The authors' unit, with the start of their weights."""
    width = site.channels_out
    unit = ExternalAttention(width, **{"slots": slots, "memories": "tied_start", **options})
    for projection in (unit.query, unit.output):
        nn.init.normal_(projection.weight, std=math.sqrt(2 / width))
    if norm is not nn.BatchNorm2d:
        unit.norm = norm(width)
    return unit


def _unknown(attention: Any) -> OptionError:
    return OptionError(
        f"eanet: attention must be 'none', one of {', '.join(map(repr, ATTENTIONS))} or what makes a layer for a site, "
        f"got {attention!r}. Pass foveal.EfficientAttention.like(), say."
    )
