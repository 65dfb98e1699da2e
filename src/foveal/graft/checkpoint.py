"""State dicts across a graft: which keys are new, kept, moved or dropped, and how an older state dict still loads."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Keys:
    """State-dict keys before and after a graft.

    A key whose name stays while another tensor takes it is both new and dropped.

    Attributes:
        new: start from the layer's own initial values.
        kept: same key, same tensor.
        dropped: no longer in the model.
        moved: old key to new key; the tensor is the same, or its first part.
    """

    new: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    moved: dict[str, str] = field(default_factory=dict)


def compare(before: Mapping[str, Any], after: Mapping[str, Any], parts: Mapping[int, Tensor]) -> Keys:
    """Compare two state dicts taken with ``keep_vars=True``.

    Args:
        before: of the model before the graft.
        after: of the model after it.
        parts: by id of a tensor in ``after``, the tensor in ``before`` whose first part it copies.
    """
    origin = {key: parts.get(id(value), value) for key, value in after.items()}
    kept = [
        key for key in after if key in before and (origin[key] is before[key] or not isinstance(before[key], Tensor))
    ]
    moved: dict[str, str] = {}
    open_keys: dict[int, list[str]] = {}
    for key in after:
        if key not in kept and isinstance(origin[key], Tensor):
            open_keys.setdefault(id(origin[key]), []).append(key)
    for key in before:
        if key not in kept and open_keys.get(id(before[key])):
            moved[key] = open_keys[id(before[key])].pop(0)
    new = [key for key in after if key not in kept and key not in moved.values()]
    dropped = [key for key in before if key not in kept and key not in moved]
    return Keys(tuple(new), tuple(kept), tuple(dropped), moved)


class Migration:
    """Hook on the model that turns a state dict from before one graft into one from after it.

    Several grafts make a chain: each lifts the state dict by one step, so one saved at any step loads. It holds names
    only: a copied or pickled model loads old state dicts as well. One that is neither old nor new is left as it is.
    """

    def __init__(self, keys: Keys) -> None:
        self.new, self.dropped, self.moved = keys.new, keys.dropped, dict(keys.moved)

    def __call__(self, module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        if not self._is_old({key[len(prefix) :] for key in state_dict if key.startswith(prefix)}):
            return
        own = module.state_dict()
        for key in self.dropped:
            del state_dict[prefix + key]
        for key, target in self.moved.items():
            if prefix + key in state_dict:
                whole = state_dict.pop(prefix + key)
                state_dict[prefix + target] = whole[: len(own[target])] if _is_longer(whole, own.get(target)) else whole
        for key in self.new:
            # A later graft may have removed the key again; its own step then drops this stand-in.
            state_dict[prefix + key] = own.get(key, torch.empty(0))
        self._warn()

    def _is_old(self, keys: set[str]) -> bool:
        arriving, leaving = set(self.new) - set(self.dropped), set(self.dropped) - set(self.new)
        arriving |= set(self.moved.values()) - set(self.moved)
        leaving |= set(self.moved) - set(self.moved.values())
        return not arriving & keys and leaving <= keys and set(self.dropped) <= keys and bool(arriving or leaving)

    def _warn(self) -> None:
        told = []
        if self.new:
            told.append(f"{len(self.new)} keys keep their initial values ({', '.join(self.new)})")
        if self.dropped:
            told.append(f"{len(self.dropped)} are ignored ({', '.join(self.dropped)})")
        if self.moved:
            told.append(f"{len(self.moved)} load under a new name ({_arrows(self.moved)})")
        warnings.warn(f"foveal: this state dict is from before a graft: {'; '.join(told)}.", stacklevel=2)


def _is_longer(whole: Any, part: Any) -> bool:
    both = isinstance(whole, Tensor) and isinstance(part, Tensor) and whole.dim() > 0 and part.dim() > 0
    return both and len(whole) > len(part) and whole.shape[1:] == part.shape[1:]


def _arrows(moved: Mapping[str, str]) -> str:
    return ", ".join(f"{old} → {new}" for old, new in moved.items())
