"""Models without contents, and how many bytes their tensors would hold at a time."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def without_contents(model: nn.Module, device: torch.device | str | None = None) -> nn.Module:
    """A copy whose parameters and buffers are new ones of the same sizes, fakes where a fake mode is active.

    Args:
        model: may be on any device, meta included; nothing of it is copied.
        device: of the copy; None keeps each tensor's.
    """
    held: dict[int, Any] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        made = torch.empty_like(tensor, device=device or tensor.device, requires_grad=False)
        held[id(tensor)] = nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made
    return copy.deepcopy(model, held)


class Storages:
    """Bytes of the storages that were made and are still held; those that were there before count nothing."""

    def __init__(self, before: Iterable[Tensor]) -> None:
        self.bytes = 0
        self._known: dict[int, Any] = {}
        for tensor in before:
            self.enter(tensor, counted=False)

    def enter(self, tensor: Tensor, *, counted: bool = True) -> None:
        """Count the tensor's storage once, until it is freed."""
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known:
            return
        size = storage.nbytes() if counted else 0
        self.bytes += size

        def leave(_: Any) -> None:
            del self._known[key]
            self.bytes -= size

        self._known[key] = weakref.ref(storage, leave)
