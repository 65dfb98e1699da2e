"""One call of a model on tensors without contents: what it multiplies, what it allocates, what it saves for backward.

Tensors are torch's fakes of the device that is asked for, so the evaluation that would run there is the one that is
seen, and nothing large is allocated. Memory is that of tensors which operators return: scratch memory inside an
operator is not seen. Parameters, buffers and the input are there before the call and are not counted as activations;
the input is counted where it is saved for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foveal.analysis.count import Counting
from foveal.analysis.without_contents import Storages, inputs_without_contents, unlogged, without_contents

Shape = tuple[int, ...]


@dataclass(frozen=True)
class DryRun:
    """Everything by module name, the empty name being the model; ``inputs`` has the shape of every call's input."""

    macs: dict[str, int]
    backward_macs: dict[str, int]
    peak_bytes: dict[str, int]
    saved_bytes: dict[str, int]
    inputs: dict[str, list[Shape]]
    uncounted: tuple[str, ...]


@unlogged()
def dry_run(model: nn.Module, example: Shape | Sequence[Tensor], *, train: bool = False) -> DryRun:
    """Run a copy of the model on an input of this shape, or on several like these tensors: in inference, or forward
    and backward in training mode.

    Whatever the model raises comes through.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        copied = without_contents(model).train(train)
        inputs = inputs_without_contents(copied, example)
    calls, counting = _Calls(), Counting(modules=False)
    held = [*copied.parameters(), *copied.buffers()]
    live, saved = _Live(calls, counting, Storages([*held, *inputs])), _Saved(calls, held)
    with ExitStack() as stack:
        stack.enter_context(torch.set_grad_enabled(train))
        stack.enter_context(mode)
        stack.enter_context(calls.watching(copied))
        stack.enter_context(counting)
        stack.enter_context(live)
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
            out = copied(*inputs)
        if train:
            backward(out)
    return DryRun(
        macs={name: flops // 2 for name, flops in calls.flops.items()},
        backward_macs={name: flops // 2 for name, flops in calls.backward_flops.items()},
        peak_bytes=calls.peak,
        saved_bytes=calls.saved,
        inputs=calls.inputs,
        uncounted=counting.uncounted(),
    )


def backward(out: Any) -> None:
    """From every tensor of the output that has a gradient, each starting with ones."""
    ends = [t for t in tree_leaves(out) if isinstance(t, Tensor) and t.requires_grad]
    if ends:
        torch.autograd.backward(ends, [torch.ones_like(end) for end in ends])


@dataclass
class _Calls:
    """Which modules are running, and what each of them came to."""

    running: list[tuple[str, ...]] = field(default_factory=list)
    peak: dict[str, int] = field(default_factory=dict)
    saved: dict[str, int] = field(default_factory=dict)
    flops: dict[str, int] = field(default_factory=dict)
    backward_flops: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, list[Shape]] = field(default_factory=dict)
    spans: list[tuple[int, int, tuple[str, ...]]] = field(default_factory=list)

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        with ExitStack() as stack:
            for name, module in model.named_modules():
                enter, leave = self._hooks(name)
                stack.callback(module.register_forward_pre_hook(enter).remove)
                stack.callback(module.register_forward_hook(leave, always_call=True).remove)
            yield

    def _hooks(self, name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        started: list[int] = []
        # A list of modules never runs itself; what its members do is its own too.
        parts = name.split(".")
        names = tuple(".".join(parts[:end]) for end in range(1, len(parts) + 1))

        def enter(_: nn.Module, given: tuple[Any, ...]) -> None:
            self.running.append(names)
            started.append(torch._C._autograd._get_sequence_nr())
            self.inputs.setdefault(name, []).append(_shape(given))

        def leave(*_: Any) -> None:
            self.running.pop()
            self.spans.append((started.pop(), torch._C._autograd._get_sequence_nr(), names))

        return enter, leave

    def names(self) -> set[str]:
        """Of the modules that run and all that they are in."""
        return set(chain(*self.running))

    def charge(self, flops: int) -> None:
        """To the modules that run; in the backward pass to those that ran when its node was made."""
        node = torch._C._current_autograd_node()
        if node is None:
            add(self.flops, self.names(), flops)
        else:
            at = node._sequence_nr()
            made_in = [names for first, after, names in self.spans if first <= at < after]
            add(self.backward_flops, chain(*made_in), flops)


def add(sums: dict[str, int], names: Iterable[str], amount: int) -> None:
    """To each of the names, and to the model once."""
    for name in {"", *names}:
        sums[name] = sums.get(name, 0) + amount


def _shape(given: Any) -> Shape:
    return next((tuple(t.shape) for t in tree_leaves(given) if isinstance(t, Tensor)), ())


class _Live(TorchDispatchMode):
    """What each operator multiplies, and bytes of the storages made and still held: the most while a module ran."""

    supports_higher_order_operators = True

    def __init__(self, calls: _Calls, counting: Counting, storages: Storages) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls, self._counting, self._storages = calls, counting, storages

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = self._counting.flops()
        out = func(*args, **(kwargs or {}))
        if flops := self._counting.flops() - before:
            self._calls.charge(flops)
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._storages.enter(leaf)
        for name in {"", *self._calls.names()}:
            self._calls.peak[name] = max(self._calls.peak.get(name, 0), self._storages.bytes)
        return out


class _Saved:
    """Storages that autograd keeps, each charged once, to the modules that ran when it was first saved."""

    def __init__(self, calls: _Calls, held: list[Tensor]) -> None:
        self._calls = calls
        self._kept = {id(tensor.untyped_storage()): tensor for tensor in held}

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in self._kept:
            # Held, so that no later storage gets the same id.
            self._kept[id(storage)] = tensor
            add(self._calls.saved, self._calls.names(), storage.nbytes())
        return tensor
