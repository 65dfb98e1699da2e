"""Planning a graft: what each of the three verbs does at one place, and carrying it out once every place fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from foveal.errors import OptionError
from foveal.graft.build import Builder, build, builder, settle
from foveal.graft.change import Attach, Swap
from foveal.graft.example import reference_tensor
from foveal.graft.layout import Sites
from foveal.graft.match import Target, Where, find
from foveal.graft.place import Blend, Tokens, inserted, why_no_child
from foveal.graft.record import Edit, Graft, commit
from foveal.graft.site import Site
from foveal.graft.split import first_filters, why_not_split
from foveal.graft.trace import trace
from foveal.graft.trial import Misfits, fit, refuse, try_out
from foveal.layers.augmented_conv import AugmentedConv


class Planner:
    """What the three verbs share: the trace, the targets, and one method a verb that plans one place."""

    def __init__(self, verb: str, model: nn.Module, where: Where, layer: Builder, example: Any) -> None:
        self.verb, self.model, self.where = verb, model, where
        self.make = builder(verb, layer)
        self.trace = trace(verb, model, example)
        self.sites = Sites(self.trace)
        self.targets = find(verb, model, where, self.sites)

    def carry_out(self, plan: Callable[[Target], Edit | str]) -> Graft:
        """Plan every place; change the model only when all of them fit."""
        edits: list[Edit] = []
        misfits: Misfits = []
        for target in self.targets:
            edit = self._why_not(target[0], target[1]) or plan(target)
            misfits += [(target[0], edit)] if isinstance(edit, str) else []
            edits += [] if isinstance(edit, str) else [edit]
        if misfits:
            refuse(self.verb, self.where, len(self.targets), misfits)
        return commit(self.verb, self.model, edits, self.trace)

    def replacement(self, target: Target) -> Edit | str:
        site = self.sites.through(*target)
        if isinstance(site, str):
            return site
        layer = build(self.verb, self.make, site, self.trace, self.model)
        return self._swap(site, layer, layer, f"{_kind(layer)}{_seen_as(site)}")

    def augmentation(self, target: Target, share: Callable[[Site], int]) -> Edit | str:
        site, conv = self.sites.through(*target), target[1]
        if isinstance(site, str):
            return site
        reason = why_not_split(conv)
        if reason is not None or not isinstance(conv, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return str(reason)
        count = share(site)
        kept = conv.out_channels - count
        if kept < 1:
            return f"{count} attention channels leave none of its {conv.out_channels} filters"
        site = replace(site, channels_out=count)
        layer = build(self.verb, self.make, site, self.trace, self.model)
        small, parts = first_filters(conv, kept)
        both = AugmentedConv(small, layer)
        settle(both, conv, self.model)
        return self._swap(site, both, layer, f"{_kind(conv)} {kept} + {_kind(layer)} {count}", parts)

    def insertion(self, target: Target, identity: bool) -> Edit | str:
        site, host = self.sites.after(*target), target[1]
        if isinstance(site, str):
            return site
        layer = build(self.verb, self.make, site, self.trace, self.model)
        form: nn.Module = layer
        if identity:
            if site.dims is None:
                return "the number of its axes is unknown, since the model could not be traced; pass example="
            form = Blend(layer, site.channels_out, site.dims)
            settle(form, host, self.model)
        form = Tokens(form) if site.layout == "channels last" else form
        form.training = host.training
        calls = self.trace.calls.get(host, [])
        flops = try_out(form, [((call.output,), {}, call.output) for call in calls])
        if isinstance(flops, str):
            return flops
        before = sum(call.flops for call in calls) if calls else None
        after = None if before is None else before + flops
        start = ", from the identity" if identity else ""
        text = f"{_kind(host)} → {_kind(layer)}{_seen_as(site)}{start}"
        return Edit(site, layer, Attach(self.model, site.name, host, form), text, before, after)

    def _swap(
        self, site: Site, new: nn.Module, layer: nn.Module, text: str, parts: dict[int, Tensor] | None = None
    ) -> Edit | str:
        calls = self.trace.calls.get(site.module, [])
        form = fit(new, site, calls)
        if isinstance(form, str):
            return form
        form.training = site.module.training
        flops = try_out(form, [(call.args, call.kwargs, call.output) for call in calls])
        if isinstance(flops, str):
            return flops
        change = Swap(self.model, site.name, site.module, form)
        before = sum(call.flops for call in calls) if calls else None
        return Edit(site, layer, change, text, before, flops if calls else None, parts or {})

    def _why_not(self, name: str, module: nn.Module) -> str | None:
        if self.verb == "insert_":
            return why_no_child(module)
        if module is self.model:
            return "it is the model itself, and the caller's variable cannot be replaced; name a module inside it"
        if inserted(module):
            return "a layer was inserted after it and would be lost; undo that graft first, and do it again afterwards"
        around = next(
            (other for other, outer in self.targets if outer is not module and module in set(outer.modules())), None
        )
        return None if around is None else f"it is inside {around!r}, which is to be replaced as well"


@contextmanager
def planning(verb: str, model: nn.Module, where: Where, layer: Builder, example: Any) -> Iterator[Planner]:
    """A plan whose failure also puts the random state back, which building layers has moved."""
    if not isinstance(model, nn.Module):
        raise OptionError(f"{verb}: wants an nn.Module to change, got a {type(model).__name__}.")
    if torch.is_inference_mode_enabled():
        raise OptionError(
            f"{verb}: layers built inside torch.inference_mode() could never be trained. "
            "Leave the region to graft; only run the model inside."
        )
    _check_not_compiled(verb, model)
    device = reference_tensor(model).device
    states = torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield Planner(verb, model, where, layer, example)
    except BaseException:
        torch.set_rng_state(states[0])
        if states[1] is not None:
            torch.cuda.set_rng_state(states[1], device)
        raise


def _check_not_compiled(verb: str, model: nn.Module) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise OptionError(f"{verb}: the model was scripted and cannot be changed. Graft first, then script.")
    for name, module in model.named_modules():
        what = f"the module {name!r}" if name else "the model"
        inner = f"{name}._orig_mod" if name else "model._orig_mod"
        if "_orig_mod" in module._modules:  # asked by name, for importing the type takes two seconds
            raise OptionError(
                f"{verb}: {what} was compiled by torch.compile and cannot be changed. "
                f"Graft first, then compile: the uncompiled one is {inner}."
            )
        if getattr(module, "_compiled_call_impl", None) is not None:
            raise OptionError(
                f"{verb}: {what} was compiled in place by .compile() and cannot be changed. Graft first, then compile."
            )


def _kind(module: nn.Module) -> str:
    return type(module).__name__


def _seen_as(site: Site) -> str:
    if site.layout == "channels first":
        return ""
    return " on tokens" if site.dims == 1 else " on channels last"
