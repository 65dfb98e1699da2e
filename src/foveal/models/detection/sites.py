"""Attention after the groups of a detector's backbone and after the outputs of its pyramid.

Papers: Shen et al., Efficient Attention: Attention with Linear Complexities (2018), the detection tables; Guo et al.,
Beyond Self-attention: External Attention using Two Linear Layers (2021), for one unit after the last group.
Departures: none for the modules of the first, which have no output projection where the values have the channels of the
map; ``projection="always"`` is the authors' code, and Wang's block for the non-local module. The ReLU that ends the
unit of external attention is left out after the pyramid, whose maps have negative values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from foveal.errors import OptionError
from foveal.functional.efficient import Normalization
from foveal.functional.inputs import check_choice
from foveal.graft import insert_
from foveal.graft.site import Site
from foveal.layers.efficient import EfficientAttention
from foveal.layers.external import ExternalAttention
from foveal.layers.non_local import NonLocal
from foveal.models.detection.pyramid import LEVELS, blank

Attention = Literal["none", "efficient", "nonlocal", "external"]
Projection = Literal["none", "always"]

PLACES = {
    **{f"res{group}": f"body.layer{group}" for group in range(1, 5)},
    **{level: f"fpn.extra_blocks.outputs.{level}" for level in LEVELS},
}
SITES = tuple(PLACES)


def attend_(
    model: BackboneWithFPN,
    attention: Attention,
    sites: Sequence[str],
    *,
    key_channels: int = 64,
    normalization: Normalization = "softmax",
    projection: Projection = "none",
    slots: int = 64,
    identity: bool = False,
) -> None:
    """Put one module after each of the sites.

    Args:
        model: changed in place.
        attention: the mechanism; ``"none"`` takes no sites.
        sites: of ``SITES``.
        key_channels: of queries and keys in efficient and non-local attention; values have the channels of the map.
        normalization: of efficient and non-local attention.
        projection: ``"none"`` as the paper draws both modules, ``"always"`` as the code of each has it.
        slots: of external attention.
        identity: start as the identity, so that a detector's outputs stay as they are.

    Raises:
        OptionError: a site or a choice is unknown, or attention and sites do not come together.
    """
    check_choice("attend_", "attention", attention, ("none", "efficient", "nonlocal", "external"))
    check_choice("attend_", "projection", projection, ("none", "always"))
    names = _checked(attention, sites)

    def layer(site: Site) -> nn.Module:
        made: dict[str, Any] = {"key_channels": key_channels, "normalization": normalization}
        if attention == "external":
            return ExternalAttention.from_site(site, slots=slots, activation="body." in site.name)
        if attention == "efficient":
            return EfficientAttention.from_site(site, projection="auto" if projection == "none" else "always", **made)
        return _non_local(site, projected=projection == "always", **made)

    if names:
        insert_(model, [PLACES[name] for name in names], layer, identity=identity, example=blank(model))


def _non_local(site: Site, *, projected: bool, **made: Any) -> NonLocal:
    layer = NonLocal.from_site(site, value_channels=site.channels_out, norm=projected, **made)
    if not projected:
        layer.output = nn.Identity()  # type: ignore[assignment]
    return layer


def _checked(attention: str, sites: Any) -> list[str]:
    names = [sites] if isinstance(sites, str) else list(sites)
    wrong = [name for name in names if name not in PLACES]
    if wrong:
        raise OptionError(f"attend_: there is no site {wrong[0]!r} in a detector. Use some of {', '.join(SITES)}.")
    if len(set(names)) < len(names):
        raise OptionError(f"attend_: sites must be named once each, got {', '.join(names)}. Drop what is there twice.")
    if (attention == "none") != (not names):
        got = f"attention={attention!r} and sites={tuple(names)!r}"
        raise OptionError(f"attend_: attention and sites come together, got {got}. Pass both or neither.")
    return names
