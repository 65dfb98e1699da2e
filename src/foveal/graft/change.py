"""The two changes that a graft makes to a model; each can be taken back as long as nothing stands on it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from foveal.graft.example import reference_tensor
from foveal.graft.place import HOOK, INSERTED, inserted, run_inserted, runs_children_in_order


@dataclass
class Swap:
    """A module is replaced wherever the model holds it."""

    model: nn.Module
    name: str
    old: nn.Module
    new: nn.Module

    def __post_init__(self) -> None:
        self._slots = [
            (parent, key)
            for parent in self.model.modules()
            for key, child in parent._modules.items()
            if child is self.old
        ]
        self._left = _fingerprint(self.new)
        self._training = self.new.training

    def apply(self) -> None:
        for parent, key in self._slots:
            setattr(parent, key, self.new)

    def revert(self) -> None:
        for parent, key in self._slots:
            setattr(parent, key, self.old)
        if self.new.training != self._training:
            self.old.train(self.new.training)
        mine, like = reference_tensor(self.old), reference_tensor(self.new, self.model)
        if mine.numel() and (mine.device, mine.dtype) != (like.device, like.dtype):
            self.old.to(like.device, like.dtype)

    def why_not_revert(self) -> str | None:
        there = set(self.model.modules())
        if any(parent not in there or parent._modules.get(key) is not self.new for parent, key in self._slots):
            return f"something else stands at {self.name!r} or around it by now"
        return None if _fingerprint(self.new) == self._left else f"the layer at {self.name!r} was itself changed since"


@dataclass
class Attach:
    """A layer is added after a module: as its last child, run by itself or by a hook."""

    model: nn.Module
    name: str
    host: nn.Module
    new: nn.Module

    def __post_init__(self) -> None:
        taken = (f"attention{'' if n == 1 else f'_{n}'}" for n in range(1, 1 << 30))
        self.child = next(name for name in taken if not hasattr(self.host, name))
        self._left = _fingerprint(self.new)

    def apply(self) -> None:
        self.host.add_module(self.child, self.new)
        if not runs_children_in_order(self.host):
            self.host.__dict__[INSERTED] = (*inserted(self.host), self.child)
            self.host._forward_hooks[HOOK] = run_inserted
            # First, so that other hooks, which gather features for example, see what the model sees.
            cast("OrderedDict[int, Any]", self.host._forward_hooks).move_to_end(HOOK, last=False)

    def revert(self) -> None:
        self.host._modules.pop(self.child, None)
        if self.child in inserted(self.host):
            self.host.__dict__[INSERTED] = inserted(self.host)[:-1]
        if INSERTED in self.host.__dict__ and not inserted(self.host):
            del self.host.__dict__[INSERTED]
            self.host._forward_hooks.pop(HOOK, None)

    def why_not_revert(self) -> str | None:
        if self.host not in set(self.model.modules()) or self.host._modules.get(self.child) is not self.new:
            return f"the layer after {self.name!r} is no longer in the model"
        if next(reversed(self.host._modules)) != self.child:
            return f"another layer was added after {self.name!r} since"
        return (
            None if _fingerprint(self.new) == self._left else f"the layer after {self.name!r} was itself changed since"
        )


Change = Swap | Attach


def _fingerprint(module: nn.Module) -> list[tuple[str, int, tuple[str, ...]]]:
    return [(name, id(part), inserted(part)) for name, part in module.named_modules(remove_duplicate=False)]
