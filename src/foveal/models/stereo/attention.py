"""Which attention PSMNet gets, and where: our choice, since the paper names the models and not the places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from foveal.errors import OptionError
from foveal.graft.site import Site
from foveal.layers.efficient import EfficientAttention
from foveal.layers.non_local import NonLocal

Build = Callable[[Site], nn.Module]
SITES = ("dres1", "dres2", "dres3", "dres4")


def attentions(
    model: nn.Module, attention: str | Build, sites: Sequence[str], key_channels: int, width: int
) -> nn.ModuleDict:
    """One layer a site, over maps ``(batch, width, disparities, rows, columns)``."""
    if isinstance(sites, str) or not sites or not set(sites) <= set(SITES):
        raise OptionError(f"psmnet: sites must be some of {', '.join(SITES)}, got {sites!r}. Use ('dres1',), say.")
    if attention == "none":
        return nn.ModuleDict()
    build = attention if callable(attention) else _named(attention, key_channels, width)
    chosen = [site for site in SITES if site in sites]
    return nn.ModuleDict(
        {site: build(Site(site, model.get_submodule(site), width, width, stride=1, dims=3)) for site in chosen}
    )


def _named(attention: Any, key_channels: int, width: int) -> Build:
    if attention == "efficient":
        return EfficientAttention.like(key_channels=key_channels)
    if attention == "nonlocal":
        # As in the paper's comparison: as many value channels as the map has, no pool.
        return NonLocal.like(key_channels=key_channels, value_channels=width)
    raise OptionError(
        f"psmnet: attention must be 'efficient', 'nonlocal', 'none' or what makes a layer for a site, got "
        f"{attention!r}. Pass foveal.ExternalAttention.like(), say."
    )
