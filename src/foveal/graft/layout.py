"""Where a tensor carries its channels, and with that the site of a module, told from what the modules around it do.

A convolution, a norm or a linear map has a layout by its type. For any other module the nearest of these whose channels
and positions, in either order, make up the tensor decides: the norm in front of a window attention, say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from torch import Tensor, nn

from foveal.graft.site import Layout, Site, fixed_layout, own_channels, own_dims, own_stride
from foveal.graft.trace import Call, Trace

Shape = tuple[int, ...]


@dataclass(frozen=True)
class _Evidence:
    time: int
    shape: Shape
    layout: Layout

    def says(self, shape: Shape) -> Layout | None:
        if self.shape == shape:
            return self.layout
        if self.shape[0] != shape[0]:
            return None
        channels = self.shape[1] if self.layout == "channels first" else self.shape[-1]
        space = self.shape[2:] if self.layout == "channels first" else self.shape[1:-1]
        forms = (space,) if len(space) == 1 else (space, (prod(space),))
        first = any(shape[1:] == (channels, *form) for form in forms)
        last = any(shape[1:] == (*form, channels) for form in forms)
        return None if first == last else "channels first" if first else "channels last"


class Sites:
    """The sites of a traced model."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._evidence = sorted(_gather(trace.ordered()), key=lambda item: item.time)

    def through(self, name: str, module: nn.Module) -> Site | str:
        """The site of a layer that takes a module's input and gives its output, or why there is none."""
        if self.trace.failure is not None:
            return self._untraced(name, module)
        calls = self.trace.calls.get(module)
        if not calls:
            return self._not_run(module)
        sites = [self._of_call(name, call) for call in calls]
        reason = next((site for site in sites if isinstance(site, str)), None)
        if reason is not None:
            return reason
        first, *rest = (site for site in sites if isinstance(site, Site))
        same = ("channels_in", "channels_out", "layout", "dims")
        if any(getattr(site, key) != getattr(first, key) for site in rest for key in same):
            pairs = sorted({f"{site.channels_in} → {site.channels_out}" for site in (first, *rest)})
            return f"it is called {len(calls)} times, with {' or '.join(pairs)} channels or in several layouts"
        return first

    def after(self, name: str, module: nn.Module) -> Site | str:
        """The site of a layer that follows a module, or why there is none."""
        if self.trace.failure is not None:
            site = self._untraced(name, module)
            return site if isinstance(site, str) else replace(site, channels_in=site.channels_out, stride=1)
        calls = self.trace.calls.get(module)
        if not calls:
            return self._not_run(module)
        sides = [self._side(call.output, call.end, "gives") for call in calls]
        reason = next((side for side in sides if isinstance(side, str)), None)
        if reason is not None:
            return reason
        first, *rest = (side for side in sides if not isinstance(side, str))
        if any(side[:2] != first[:2] or len(side[2]) != len(first[2]) for side in rest):
            told = " or ".join(map(str, sorted({side[1] for side in (first, *rest)})))
            return f"it is called {len(calls)} times and gives {told} channels or several layouts"
        layout, channels, size = first
        return Site(name, module, channels, channels, 1, size, size, len(size), layout)

    def _of_call(self, name: str, call: Call) -> Site | str:
        if not call.args and call.kwargs:
            return f"it is called with named inputs only ({', '.join(call.kwargs)})"
        taken = self._side(call.args[0] if call.args else None, call.start, "takes")
        given = self._side(call.output, call.end, "gives")
        if isinstance(taken, str) or isinstance(given, str):
            return taken if isinstance(taken, str) else str(given)
        if taken[0] != given[0] or len(taken[2]) != len(given[2]):
            return f"it takes {taken[0]} in {len(taken[2])}-D and gives {given[0]} in {len(given[2])}-D"
        stride = max((round(a / b) for a, b in zip(taken[2], given[2], strict=True) if b), default=1)
        return Site(name, call.module, taken[1], given[1], max(stride, 1), taken[2], given[2], len(taken[2]), taken[0])

    def _side(self, tensor: Any, time: int, verb: str) -> tuple[Layout, int, Shape] | str:
        if not isinstance(tensor, Tensor):
            return f"it {verb} {'nothing' if tensor is None else f'a {type(tensor).__name__}'}, not one tensor"
        shape = tuple(tensor.shape)
        if not 3 <= len(shape) <= 5:
            return f"it {verb} {shape}, which is no map: (batch, channels, *space) or (batch, positions, channels)"
        layout = self._layout(shape, time)
        if layout is None:
            return f"it {verb} {shape} and nothing near it tells where the channels are"
        return (layout, shape[1], shape[2:]) if layout == "channels first" else (layout, shape[-1], shape[1:-1])

    def _layout(self, shape: Shape, time: int) -> Layout | None:
        past = (item for item in reversed(self._evidence) if item.time <= time)
        future = (item for item in self._evidence if item.time > time)
        for items in (past, future):
            said = next((layout for item in items if (layout := item.says(shape)) is not None), None)
            if said is not None:
                return said
        return None

    def _not_run(self, module: nn.Module) -> str:
        members = [name for name, _ in module.named_children()]
        inside = f"; name what is inside it ({', '.join(members[:3])}{', …' if members[3:] else ''})" if members else ""
        return f"the model never runs it itself on this input{inside}"

    def _untraced(self, name: str, module: nn.Module) -> Site | str:
        channels = own_channels(module)
        if channels is None:
            return (
                f"its channels are unknown, since the model could not be traced ({self.trace.failure}); pass example="
            )
        layout = fixed_layout(module, ()) or "channels last"
        return Site(name, module, *channels, own_stride(module), dims=own_dims(module), layout=layout)


def _gather(calls: list[Call]) -> Iterator[_Evidence]:
    for call in calls:
        for time, tensor in ((call.start, call.args[0] if call.args else None), (call.end, call.output)):
            shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else ()
            layout = fixed_layout(call.module, shape) if len(shape) >= 3 else None
            if layout is not None:
                yield _Evidence(time, shape, layout)
