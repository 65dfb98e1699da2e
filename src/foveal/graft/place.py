"""What stands between a model and a layer: layouts, extra arguments, a start as the identity, and insertion by hook."""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn

from foveal.errors import OptionError


class OneInput(nn.Module):
    """A layer in a place that is called with more than its input, as long as the rest is empty (None or False)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, *rest: Any, **named: Any) -> Tensor:
        self._check(rest, named)
        return cast(Tensor, self.layer(x))

    def _check(self, rest: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = [f"argument {n + 2}" for n, value in enumerate(rest) if not empty(value)]
        given += [name for name, value in named.items() if not empty(value)]
        if given:
            raise OptionError(
                f"{type(self.layer).__name__}: the module that it replaced was called with its input alone when it was "
                f"grafted, now {', '.join(given)} came too, which it cannot use. Undo the graft for this use."
            )


class Tokens(OneInput):
    """A channels-first layer on ``(batch, *positions, channels)``; a sequence of tokens is a map with one axis."""

    def forward(self, x: Tensor, *rest: Any, **named: Any) -> Tensor:
        self._check(rest, named)
        y: Tensor = self.layer(x.movedim(-1, 1))
        return y.movedim(1, -1)


class Blend(nn.Module):
    """``lerp(x, layer(x), scale)`` with one scale a channel that starts at zero: the identity, bit for bit.

    One form serves every layer: for one with a residual, ``layer(x) = x + f(x)``, it is ``x + scale * f(x)``, the usual
    zero-initialised branch; for a gate, ``layer(x) = x * g(x)``, it is ``x * (1 + scale * (g(x) - 1))``, a gate that
    starts open. A scale of one is the layer itself, so nothing is added twice.
    """

    def __init__(self, layer: nn.Module, channels: int, dims: int) -> None:
        super().__init__()
        self.layer = layer
        self.scale = nn.Parameter(torch.zeros(channels, *(1,) * dims))

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(x, self.layer(x).to(x.dtype), self.scale.to(x.dtype))


def empty(value: Any) -> bool:
    """Whether an argument says nothing."""
    return value is None or value is False


# A key that torch's counter of hooks never gives out. Hook ids start anew in every process, so a hook registered the
# usual way and pickled with its model would be overwritten by the first hook of a process that gets the same id.
HOOK = -1
INSERTED = "_inserted"


def run_inserted(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Forward hook: run the layers inserted after a module, which it finds through the module alone, so that copies of
    the model run their own layers."""
    for name in getattr(module, INSERTED):
        output = getattr(module, name)(output)
    return output


def inserted(module: nn.Module) -> tuple[str, ...]:
    """Names of the children that run after a module."""
    names: tuple[str, ...] = module.__dict__.get(INSERTED, ())
    return names


def runs_children_in_order(module: nn.Module) -> bool:
    """Whether a layer appended to a module runs last by itself."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def why_no_child(module: nn.Module) -> str | None:
    """Why a module cannot carry one more child."""
    if runs_children_in_order(module):
        return None
    if type(module).forward is nn.Module.forward:
        return "it is a list of modules that is never run itself; name its members"
    told = "its forward runs over all its children, so it would run the new layer as one of them; name a child of it"
    if isinstance(module, nn.Sequential | nn.ModuleDict | nn.ModuleList):
        return told
    try:
        source = inspect.getsource(type(module).forward)
    except (OSError, TypeError):
        return None
    return (
        told if any(word in source for word in ("self.children()", "self.named_children()", "self._modules")) else None
    )
