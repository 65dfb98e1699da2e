"""Building a layer for a site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import nn

from foveal.errors import FovealError, OptionError, ShapeError
from foveal.graft.example import reference_tensor
from foveal.graft.site import Site
from foveal.graft.trace import Trace, one_line
from foveal.layers.base import AttentionLayer

Builder: TypeAlias = "Callable[[Site], nn.Module] | type[AttentionLayer]"


def builder(verb: str, layer: Any) -> Callable[[Site], nn.Module]:
    """Whatever describes a layer, as a function of the site."""
    if isinstance(layer, type) and hasattr(layer, "from_site"):
        make: Callable[[Site], nn.Module] = layer.from_site
        return make
    if isinstance(layer, nn.Module | type) or not callable(layer):
        told = f"the class {layer.__name__}" if isinstance(layer, type) else repr(layer)[:80]
        if isinstance(layer, nn.Module):
            told = f"a module that is already built, of the class {type(layer).__name__}"
        raise OptionError(
            f"{verb}: wants what builds a layer for a site, got {told}. "
            "Pass an AttentionLayer class, Layer.like(...) or a function: lambda site: SEModule(site.channels_out)."
        )
    made: Callable[[Site], nn.Module] = layer
    return made


def build(verb: str, make: Callable[[Site], nn.Module], site: Site, trace: Trace, model: nn.Module) -> nn.Module:
    """The layer for a site, on the device and in the dtype and mode of what stands there."""
    try:
        layer = make(site)
    except Exception as error:
        told = str(error).rstrip(".") if isinstance(error, FovealError) else one_line(error)
        hint = ""
        if trace.failure is not None:
            hint = f" Its size is unknown, since the model could not be traced ({trace.failure}): pass example=."
        kind = ShapeError if isinstance(error, ShapeError) else OptionError
        raise kind(f"{verb}: the layer for {site.name!r} cannot be built: {told}.{hint}") from error
    if not isinstance(layer, nn.Module):
        raise OptionError(f"{verb}: the layer for {site.name!r} must be an nn.Module, got a {type(layer).__name__}.")
    settle(layer, site.module, model)
    return layer


def settle(layer: nn.Module, place: nn.Module, model: nn.Module) -> None:
    """Give a new layer the device, dtype and mode of its place; what it took over from the model stays as it is."""
    held = set(model.modules())
    if held.isdisjoint(layer.modules()):
        like = reference_tensor(place, model)
        layer.to(like.device, like.dtype)
    for module in set(layer.modules()) - held:
        module.training = place.training
