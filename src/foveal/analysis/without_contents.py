"""Models without contents, and how many bytes their tensors would hold at a time."""

from __future__ import annotations

import copy
import logging
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


def without_contents(model: nn.Module, device: torch.device | str | None = None) -> nn.Module:
    """A copy whose tensors are new ones of the same sizes, fakes where a fake mode is active.

    Args:
        model: may be on any device, meta included; nothing of it is copied.
        device: of the copy; None keeps each tensor's.
    """
    held: dict[int, Any] = {}
    for tensor in [*model.parameters(), *model.buffers(), *_others(model)]:
        made = torch.empty_like(tensor, device=device or tensor.device, requires_grad=False)
        held[id(tensor)] = nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made
    return copy.deepcopy(model, held)


def _others(model: nn.Module) -> Iterator[Tensor]:
    """Tensors that modules hold as plain attributes, or in a list of these, as torchvision's anchors do."""
    for module in model.modules():
        yield from (leaf for leaf in tree_leaves(list(vars(module).values())) if isinstance(leaf, Tensor))


def inputs_without_contents(
    model: nn.Module, example: tuple[int, ...] | Sequence[Tensor], device: torch.device | str | None = None
) -> tuple[Tensor, ...]:
    """New tensors like those of an example, or of one shape, in the model's dtype where they are floats.

    Args:
        model: tells dtype and device.
        example: nothing of it is copied.
        device: of the tensors; the model's where None.
    """
    like = next((p for p in model.parameters() if p.dtype.is_floating_point), torch.empty(0))
    tensors = [each for each in example if isinstance(each, Tensor)]
    shapes: list[tuple[Any, torch.dtype]] = [(each.shape, each.dtype) for each in tensors] or [(example, like.dtype)]
    return tuple(
        torch.empty(shape, dtype=like.dtype if dtype.is_floating_point else dtype, device=device or like.device)
        for shape, dtype in shapes
    )


@contextmanager
def unlogged() -> Iterator[None]:
    """Without what torch logs of an operator that its fakes cannot follow; it raises the same."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


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
