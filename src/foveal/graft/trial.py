"""Trying a layer in its place's shapes before the model is touched, and saying what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from foveal.errors import ShapeError
from foveal.graft.example import reference_tensor
from foveal.graft.place import OneInput, Tokens, empty
from foveal.graft.site import Site
from foveal.graft.trace import Call, evaluating, one_line, quietly

Misfits = list[tuple[str, str]]


def fit(layer: nn.Module, site: Site, calls: Sequence[Call]) -> nn.Module | str:
    """The layer in the form that a place calls, or why the place's calls are not for it."""
    rest = [value for call in calls for value in (*call.args[1:], *call.kwargs.values())]
    if not all(map(empty, rest)):
        names = [f"argument {n + 2}" for call in calls for n, value in enumerate(call.args[1:]) if not empty(value)]
        names += [name for call in calls for name, value in call.kwargs.items() if not empty(value)]
        return f"the model calls it with more than its input, {', '.join(dict.fromkeys(names))}, which no layer takes"
    if site.layout == "channels last":
        return Tokens(layer)
    return OneInput(layer) if rest else layer


def try_out(layer: nn.Module, calls: Sequence[tuple[Any, Any, Any]]) -> int | str:
    """Operations of a layer over the calls ``(args, kwargs, wanted output)`` of its place, or why it does not fit."""
    flops, known = 0, dict[str, tuple[tuple[int, ...], int]]()
    for args, kwargs, wanted in calls:
        key = repr([tuple(leaf.shape) for leaf in args if isinstance(leaf, Tensor)])
        if key not in known:
            try:
                known[key] = _run(layer, args, kwargs)
            except Exception as error:
                return f"it fails on an input of {tuple(args[0].shape)}: {one_line(error)}"
        shape, cost = known[key]
        if shape != tuple(wanted.shape):
            return f"the model needs {tuple(wanted.shape)} there, the layer turns {tuple(args[0].shape)} into {shape}"
        flops += cost
    return flops


def _run(layer: nn.Module, args: Any, kwargs: Any) -> tuple[tuple[int, ...], int]:
    """Shape of the output and operations, on the meta device; with real zeros where the layer cannot run there."""
    tensors = {
        **dict(layer.named_parameters(remove_duplicate=False)),
        **dict(layer.named_buffers(remove_duplicate=False)),
    }
    meta = {name: tensor.detach().to("meta") for name, tensor in tensors.items()}
    with evaluating(layer), quietly(layer):
        try:
            with FlopCounterMode(display=False) as counter:
                output = functional_call(layer, meta, args, kwargs)
        except Exception:
            device = reference_tensor(layer).device
            args, kwargs = tree_map(
                lambda leaf: torch.zeros_like(leaf, device=device) if isinstance(leaf, Tensor) else leaf, (args, kwargs)
            )
            with FlopCounterMode(display=False) as counter:
                output = layer(*args, **kwargs)
    if not isinstance(output, Tensor):
        raise ShapeError(f"it gives a {type(output).__name__}, not one tensor")
    return tuple(output.shape), counter.get_total_flops()


def refuse(verb: str, where: Any, matched: int, misfits: Misfits) -> NoReturn:
    """Say which of the matched modules cannot take the layer, and why."""
    told = "; ".join(f"{name!r} ({reason})" for name, reason in misfits[:4])
    more = f"; and {len(misfits) - 4} more" if len(misfits) > 4 else ""
    what = f"{where!r}" if isinstance(where, str) else "the given place"
    if len(misfits) == matched:
        raise ShapeError(f"{verb}: {what} matches only modules that cannot take the layer: {told}{more}.")
    raise ShapeError(
        f"{verb}: {what} matches {matched} modules, of which {len(misfits)} cannot take the layer: {told}{more}. "
        "Narrow the pattern; nothing was changed."
    )
