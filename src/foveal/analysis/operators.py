"""One inference of a model as a list of operators: in which module each ran, what it multiplied, moved and held.

Nothing is computed: tensors are torch's fakes of the device that is asked for, so the evaluation seen is the one that
would run there. ``kind`` groups operators that run at one speed; views cost nothing and are left out. Bytes moved are
those of an operator's tensors, each read or written once: what an evaluation reads again from cache is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foveal.analysis.count import Counting
from foveal.analysis.without_contents import Storages, inputs_without_contents, unlogged, without_contents

Shape = tuple[int, ...]
FUSED, CONVOLUTION = "fused attention", "convolution"
_SOFTMAX = {"_softmax", "_log_softmax", "logsumexp"}
_EXPONENTIAL = {"exp", "erf", "gelu", "sigmoid", "tanh", "silu", "silu_"}
# Fewer output channels than these leave the lanes of a vector empty.
_LANES = 8
_VECTOR = 16
_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot"}


@dataclass(frozen=True)
class Operator:
    """One call: ``macs`` multiply-accumulates, ``moved`` bytes, and ``held`` bytes of activations after it.

    ``module`` is the innermost one that ran; ``scores`` are the exponentials inside fused attention.
    ``whole`` are the multiply-accumulates of a convolution whose channels fill whole vectors, 0 for all else.
    """

    module: str
    kind: str
    macs: int
    moved: int
    held: int
    scores: int = 0
    whole: int = 0


@dataclass(frozen=True)
class Operators:
    """The operators in order, the first input's shape of each module that ran, and what could not be counted."""

    rows: tuple[Operator, ...]
    inputs: dict[str, Shape]
    uncounted: tuple[str, ...]

    @property
    def macs(self) -> int:
        return sum(row.macs for row in self.rows)

    @property
    def peak(self) -> int:
        """The most bytes of activations at one time; the input is not among them."""
        return max((row.held for row in self.rows), default=0)


@unlogged()
def operators(model: nn.Module, example: Shape | Sequence[Tensor], *, device: torch.device | str = "cpu") -> Operators:
    """What a model would run on this device in inference; the model may be on the meta device.

    The example is the shape of its input, or tensors like those that it takes.

    Whatever the model raises comes through.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with torch.no_grad(), mode:
        copied = without_contents(model, device).eval()
        inputs = inputs_without_contents(copied, example, device)
    where, counting = _Where(), Counting()
    seen = _Seen(where, counting, Storages([*copied.parameters(), *copied.buffers(), *inputs]))
    with ExitStack() as stack:
        for name, module in copied.named_modules():
            enter, leave = where.hooks(name)
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        for context in (torch.no_grad(), mode, counting, seen):
            stack.enter_context(context)
        copied(*inputs)
    return Operators(tuple(seen.rows), where.inputs, counting.uncounted())


class _Where:
    """The modules that are running."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.inputs: dict[str, Shape] = {}

    @property
    def innermost(self) -> str:
        return self.running[-1] if self.running else ""

    def hooks(self, name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        def enter(_: nn.Module, given: tuple[Any, ...]) -> None:
            self.running.append(name)
            shapes = (tuple(leaf.shape) for leaf in tree_leaves(given) if isinstance(leaf, Tensor))
            self.inputs.setdefault(name, next(shapes, ()))

        def leave(*_: Any) -> None:
            self.running.pop()

        return enter, leave


class _Seen(TorchDispatchMode):
    """Writes a row for every operator that is no view."""

    supports_higher_order_operators = True

    def __init__(self, where: _Where, counting: Counting, storages: Storages) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows: list[Operator] = []
        self._where, self._counting, self._storages = where, counting, storages

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = self._counting.flops()
        out = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        for tensor in made:
            self._storages.enter(tensor)
        macs = (self._counting.flops() - before) // 2
        if not _is_view(func, given, made):
            moved = sum(_bytes(tensor) for tensor in (*given, *made))
            kind = _kind(func, args)
            scores = prod(args[0].shape[:-1]) * args[1].shape[-2] if kind == FUSED else 0
            whole = _whole(args[1].shape, macs) if kind == CONVOLUTION else 0
            self.rows.append(Operator(self._where.innermost, kind, macs, moved, self._storages.bytes, scores, whole))
        return out


def _is_view(func: Any, given: list[Tensor], made: list[Tensor]) -> bool:
    if not made:
        return True
    if getattr(getattr(func, "_schema", None), "is_mutable", False):
        return False
    there = {id(tensor.untyped_storage()) for tensor in given}
    new = [tensor for tensor in made if id(tensor.untyped_storage()) not in there]
    return not new or func is torch.ops.aten.empty.memory_format


def _bytes(tensor: Tensor) -> int:
    # An expanded axis is one row in memory.
    kept = prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return kept * tensor.element_size()


def _kind(func: Any, args: tuple[Any, ...]) -> str:
    namespace, _, name = str(getattr(func, "_schema", func)).partition("(")[0].partition("::")
    name = name.partition(".")[0]
    if namespace == "foveal":
        return name.removeprefix("cpu_")
    if namespace not in ("aten", "prims"):
        return f"{namespace}::{name}" if name else "elementwise"
    if name == "convolution":
        return _convolution(args)
    if name in _PRODUCTS:
        return "product"
    if "scaled_dot_product" in name:
        return FUSED
    if name in _SOFTMAX:
        return "softmax"
    if name in _EXPONENTIAL:
        return "exponential"
    if "_norm" in name:
        return "normalization"
    if name.startswith(("mean", "sum", "max", "amax", "avg_pool", "_adaptive", "max_pool", "var", "std")):
        return "reduction"
    return "elementwise"


def _convolution(args: tuple[Any, ...]) -> str:
    weight, groups = args[1], args[8]
    if groups > 1:
        return "grouped convolution"
    if weight.shape[0] < _LANES:
        return "convolution to few channels"
    return "1x1 convolution" if prod(weight.shape[2:]) == 1 else CONVOLUTION


def _whole(weight: Shape, macs: int) -> int:
    """With 40 channels the last of three vectors of 16 is half empty, and takes as long; images of 3 have kernels."""
    filled = [-(-channels // _VECTOR) * _VECTOR if channels >= _LANES else channels for channels in weight[:2]]
    return macs * prod(filled) // max(prod(weight[:2]), 1)
