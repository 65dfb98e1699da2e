"""``with foveal.capture(model) as maps``: keep what is needed to give any map of any layer afterwards."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from foveal.errors import FovealError, NoMatchError, OptionError
from foveal.graft.match import matches
from foveal.seeing.captured import Autocast, Captured
from foveal.seeing.following import Following
from foveal.seeing.grid import Grid
from foveal.seeing.maps import Maps
from foveal.seeing.readings import Unread, read, reads

_LOOKS_LIKE = re.compile(r"attention|attn", re.IGNORECASE)
MOST_EXTRA = 32  # class, distillation and register tokens, at most


@contextmanager
def capture(
    model: nn.Module, where: str | Sequence[str] = "*", *, calls: int = 1, image: Sequence[int] | None = None
) -> Iterator[Maps]:
    """Record every attention layer that runs inside the block, whichever evaluation it runs.

    Layers of foveal, ``torch.nn.MultiheadAttention`` attending to itself (torchvision's transformers too) and timm's
    attention over tokens. A layer's input is copied, nothing else is kept, and maps are computed when asked for. A
    compiled model runs uncompiled inside. Where positions lie on the image is followed through convolutions, pools,
    padding and interpolation; maps of a volume, points and what is made of codes lie on none and are asked by position.

    Args:
        model: any module; it may be called in any way, in training or evaluation, under autocast or inference mode.
        where: globs over module names; one that names a module means all attention inside it.
        calls: of each layer that are kept, the newest; more for a layer that is used several times in one forward.
        image: size of the image, for a model that is given features instead of images.

    Raises:
        NoMatchError: nothing that can be read matches; lists what there is.
        FovealError: at the end, where none of the layers was called.
    """
    if calls < 1:
        raise OptionError(f"capture: calls must be at least 1, got {calls}. Leave it out for the newest call.")
    maps, following = Maps(), Following(image)
    chosen = _chosen(model, [where] if isinstance(where, str) else list(where), maps)
    with ExitStack() as stack:
        stack.enter_context(_uncompiled())
        stack.callback(model.register_forward_pre_hook(_first_image(following), with_kwargs=True).remove)
        for name, module in chosen.items():
            note = _note(name, maps, following, calls)
            stack.callback(module.register_forward_pre_hook(note, with_kwargs=True).remove)
        with following:
            yield maps
    if not maps:
        reasons = "; ".join(f"{name}: {why}" for name, why in maps.left_out.items())
        itself = "Ask a layer of foveal itself: attention_map(x, at=…)."
        what_to_do = itself if reasons else "Call the model inside the with block."
        raise FovealError(
            f"capture: none of the {len(chosen)} layers that match gave a map{f' ({reasons})' if reasons else ''}. "
            f"{what_to_do}"
        )


def _chosen(model: nn.Module, where: list[str], maps: Maps) -> dict[str, nn.Module]:
    """The layers to listen to; fills in why others are left out."""
    readable: dict[str, nn.Module] = {}
    unknown: dict[str, str] = {}
    for name, module in model.named_modules():
        if reads(module):
            readable[name] = module
        elif _LOOKS_LIKE.search(type(module).__name__) and not any(reads(part) for part in module.modules()):
            unknown[name] = f"{type(module).__module__}.{type(module).__name__} is not known"
    chosen = {name: module for name, module in readable.items() if means(where, name)}
    maps.left_out.update({name: reason for name, reason in unknown.items() if means(where, name)})
    if not chosen:
        there = list(readable)
        near = difflib.get_close_matches(where[0] if where else "", there, n=3, cutoff=0.3) or there[:5]
        has = f"The model has {len(there)}: {', '.join(near)}{' and more' if len(there) > len(near) else ''}."
        left = "; ".join(f"{name}: {reason}" for name, reason in list(maps.left_out.items() or unknown.items())[:5])
        hint = has if there else f"The model has none{f' ({left})' if left else ''}."
        raise NoMatchError(f"capture: no attention that can be read matches {', '.join(map(repr, where))}. {hint}")
    return chosen


def means(where: Sequence[str], name: str) -> bool:
    """Whether a glob means a module or one that it is in."""
    parts = name.split(".")
    inside = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return any(glob == "*" or any(matches(glob, part) for part in inside) for glob in where)


def _first_image(following: Following) -> Callable[..., None]:
    def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        leaves = tree_leaves((args, kwargs))
        given = next((leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim() > 2), None)
        if given is not None and not following.given and given.dim() > 3:
            following.begin(given)

    return begin


def _note(name: str, maps: Maps, following: Following, keep: int) -> Callable[..., None]:
    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = next(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        autocast = Autocast(x.device.type)
        try:
            with torch.no_grad():
                reading = read(module, args, kwargs)
                grid, extra = _grid(name, following, x, reading.size)
        except Unread as error:
            maps.left_out[name] = str(error)
            return
        maps.add(Captured(name, module, reading, grid, extra, autocast), keep)

    return note


def _grid(name: str, following: Following, x: Tensor, own: tuple[int, ...]) -> tuple[Grid, int]:
    """Where a layer's own positions lie on the image, and how many of its tokens are no positions."""
    lattice, image = following.of(x), following.image
    if lattice is not None and lattice.size == own:
        return lattice.grid(), 0
    if following.from_codes(x) and not following.given:
        return Grid.off(own, f"{name!r} has a map that is made of codes, not of an image"), 0
    if image is None and len(own) == 1:
        return Grid.off(own, f"{name!r} attends among {own[0]} positions of no image"), 0
    if image is None or len(image) == len(own):
        return Grid.even(image or own, own), 0
    if len(own) > 1:
        return Grid.off(own, f"{name!r} has a map of {own} positions, other axes than the {image} image has"), 0
    if lattice is not None and 0 <= (extra := own[0] - torch.Size(lattice.size).numel()) <= MOST_EXTRA:
        return lattice.grid(), extra
    raise Unread(f"how its {own[0]} tokens lie on the {image} image could not be followed")


@contextmanager
def _uncompiled() -> Iterator[None]:
    with torch.compiler.set_stance("force_eager"):
        yield
