"""The one table of the compared mechanisms: who made each, where its paper puts it, and how it is built there.

Sizes follow the papers on their ResNets (convolutions of 64 channels and more). Narrower convolutions, which no paper
uses, get a quarter of their channels from attention and heads of at least four channels.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from foveal.errors import OptionError
from foveal.graft import Graft, augment_, insert_, replace_
from foveal.graft.site import Site
from foveal.layers.augmented import AugmentedAttention
from foveal.layers.efficient import EfficientAttention
from foveal.layers.explicit import ExplicitAttention
from foveal.layers.external import ExternalAttention
from foveal.layers.local import LocalAttention
from foveal.layers.non_local import NonLocal
from foveal.models.places import Place, residual_blocks, sites_of

Verb = Literal["nothing", "insert", "augment", "replace"]


@dataclass(frozen=True)
class Mechanism:
    """One row: ``place`` names a function of ``places``, ``build`` makes the module for a site."""

    name: str
    title: str
    paper: str
    verb: Verb
    place: Place | None = None
    build: Callable[[Site], nn.Module] | None = None

    @property
    def where(self) -> str:
        """The place in words."""
        said = {"nothing": "", "insert": "after ", "augment": "beside part of ", "replace": "instead of "}
        return "the backbone alone" if self.place is None else said[self.verb] + self.place.value


def _se(site: Site) -> nn.Module:
    from timm.layers import SEModule

    return SEModule(site.channels_out)


def _eca(site: Site) -> nn.Module:
    from timm.layers import EcaModule

    return EcaModule(site.channels_out)


def _cbam(site: Site) -> nn.Module:
    from timm.layers.cbam import CbamModule

    return CbamModule(site.channels_out)


def _efficient(site: Site) -> nn.Module:
    return EfficientAttention.from_site(site, key_channels=min(64, site.channels_out))


def _local(site: Site) -> nn.Module:
    return LocalAttention.from_site(site, kernel_size=7, heads=_heads(site.channels_out))


def _augmented(site: Site) -> nn.Module:
    heads = _heads(site.channels_out, depth=1)
    keys = None if site.channels_in >= 64 else 2 * site.channels_out
    return AugmentedAttention.from_site(site, heads=heads, key_channels=keys)


def _explicit(site: Site) -> nn.Module:
    return ExplicitAttention.from_site(site, heads=_heads(site.channels_out, depth=1), decay="gaussian")


def _heads(channels: int, *, depth: int = 4) -> int:
    """The papers' 8, or the most that leave each head ``depth`` channels."""
    return max((heads for heads in range(1, 9) if channels % heads == 0 and channels // heads >= depth), default=1)


def _share(site: Site, plain: Sequence[str]) -> int:
    """Channels of a convolution that attention makes: a tenth in bottlenecks, a quarter in plain and narrow blocks."""
    if site.channels_out < 64:
        return max(4, round(site.channels_out / 16) * 4)
    return max(8, round((0.25 if site.name in plain else 0.1) * site.channels_out / 8) * 8)


_ROWS = (
    Mechanism("none", "no attention", "He et al. 2016", "nothing"),
    Mechanism("se", "Squeeze-and-Excitation", "Hu et al. 2018", "insert", Place.LAST_NORMS, _se),
    Mechanism("eca", "Efficient Channel Attention", "Wang et al. 2020", "insert", Place.LAST_NORMS, _eca),
    Mechanism("cbam", "Convolutional Block Attention", "Woo et al. 2018", "insert", Place.LAST_NORMS, _cbam),
    Mechanism("nonlocal", "Non-local block", "Wang et al. 2018", "insert", Place.STAGES, NonLocal.from_site),
    Mechanism("augmented", "Augmented convolution", "Bello et al. 2019", "augment", Place.FIRST_CONVS, _augmented),
    Mechanism("local", "Stand-alone self-attention", "Ramachandran et al. 2019", "replace", Place.ALL_CONVS, _local),
    Mechanism("efficient", "Efficient attention", "Shen et al. 2021", "insert", Place.STAGES, _efficient),
    Mechanism("external", "External attention", "Guo et al. 2021", "insert", Place.STAGES, ExternalAttention.from_site),
    Mechanism("explicit", "Explicitly modelled attention", "Tan et al. 2020", "augment", Place.CONVS, _explicit),
)
MECHANISMS = {row.name: row for row in _ROWS}


def mechanism(name: str) -> Mechanism:
    """The row of a name, or an error with the nearest ones."""
    if name in MECHANISMS:
        return MECHANISMS[name]
    near = difflib.get_close_matches(name, MECHANISMS, n=2)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Use one of {', '.join(MECHANISMS)}."
    raise OptionError(f"with_attention: there is no mechanism {name!r}. {hint}")


def with_attention(
    model: nn.Module,
    name: str,
    *,
    sites: str | Sequence[str] | None = None,
    identity: bool = False,
    example: Any = None,
) -> Graft | None:
    """Put a mechanism into a model where its paper puts it.

    Args:
        model: changed in place; a residual network, or any model where ``sites`` are given.
        name: one of ``MECHANISMS``.
        sites: globs over module names instead of the paper's place.
        identity: what is inserted after a module starts as the identity; what takes the place of convolutions cannot.
        example: an input to trace sizes with; guessed where None.

    Returns:
        The record of the graft; None for ``none``.

    Raises:
        OptionError: there is no such mechanism, or the model has no residual blocks and no ``sites`` are given.
        NoMatchError: ``sites`` match nothing.
        ShapeError: the mechanism does not fit a site.
    """
    row = mechanism(name)
    if row.place is None or row.build is None:
        return None
    if sites is not None:
        where = [sites] if isinstance(sites, str) else list(sites)
    else:
        where = sites_of(model, row.place, row.name)
    if row.verb == "replace":
        return replace_(model, where, row.build, example=example)
    if row.verb == "augment":
        plain = [conv for block in residual_blocks(model) if len(block.convs) > 1 for conv in block.convs]
        return augment_(model, where, row.build, channels=lambda site: _share(site, plain), example=example)
    return insert_(model, where, row.build, identity=identity, example=example)
