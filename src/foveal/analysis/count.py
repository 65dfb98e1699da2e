"""Parameters and multiply-accumulates of a model, by module.

torch's FlopCounterMode counts two FLOPs a multiply-accumulate (MAC); figures here are MACs, half of that. As is usual,
only matrix products, convolutions, fused attention and Fourier transforms are counted, element-wise work and reductions
are not. A Fourier transform over N points is taken as 5 N log2 N real operations whatever the factors of N, half of
that where one side is real: 2.5 and 1.25 N log2 N MACs. An operator that multiplies but has no formula is named in a
warning.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from math import log2, prod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from foveal.errors import ShapeError

Shape = tuple[int, ...]

# Without it newer torches count Triton kernels and do not run them; torch 2.10 does not know it.
_RUNNING: dict[str, Any] = (
    {"skip_unsupported": True} if "skip_unsupported" in inspect.signature(FlopCounterMode).parameters else {}
)
# Of torch's own operators these multiply matrices inside and have no formula in torch.
_MULTIPLYING = {
    "_cdist_forward",
    "_cudnn_rnn",
    "_native_multi_head_attention",
    "_transformer_encoder_layer_fwd",
    "_trilinear",
    "miopen_rnn",
    "mkldnn_rnn_layer",
}


@dataclass(frozen=True)
class ModuleCount:
    """One module with everything inside it; the name is empty for the model itself."""

    name: str
    kind: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class Count:
    """The model's totals, its modules in order, and the operators that could not be counted."""

    parameters: int
    macs: int
    modules: tuple[ModuleCount, ...]
    uncounted: tuple[str, ...]


def count(model: nn.Module, example: Tensor | tuple[Tensor, ...] | Shape) -> Count:
    """Count one forward pass in evaluation mode.

    Args:
        model: left as it is; a copy runs.
        example: an input on the model's device, or a tuple of several, run as they are; or a shape, batch first, then
            nothing is computed or allocated (the copy is on the meta device).

    Raises:
        ShapeError: the shape is not a tuple of positive sizes.
    """
    with torch.no_grad():
        copied = copy.deepcopy(model).eval()
        inputs = _inputs(copied, example)
        with Counting() as counting:
            copied(*inputs)
        macs, uncounted = counting.macs(copied), counting.uncounted()
    modules = tuple(
        ModuleCount(name, type(module).__name__, _parameters(module), macs.get(name, 0))
        for name, module in copied.named_modules()
    )
    if uncounted:
        warnings.warn(
            f"count: {', '.join(uncounted)} ran without a formula, so the count misses what they compute. "
            "Register one with torch.utils.flop_counter.register_flop_formula.",
            stacklevel=2,
        )
    return Count(_parameters(copied), macs.get("", 0), modules, uncounted)


def _inputs(model: nn.Module, example: Tensor | tuple[Tensor, ...] | Shape) -> tuple[Tensor, ...]:
    if isinstance(example, Tensor):
        return (example,)
    tensors = tuple(each for each in example if isinstance(each, Tensor))
    if not tensors:
        return (_on_meta(model, cast(Shape, example)),)
    if len(tensors) < len(example):
        raise ShapeError("count: the example must be tensors alone or a shape, got both. Give one of them.")
    return tensors


def _on_meta(model: nn.Module, shape: Shape) -> Tensor:
    if not shape or any(not isinstance(size, int) or size < 1 for size in shape):
        raise ShapeError(f"count: the example's shape must be positive sizes, batch first, got {shape!r}.")
    model.to("meta")
    dtype = next((p.dtype for p in model.parameters() if p.dtype.is_floating_point), torch.float32)
    return torch.empty(shape, device="meta", dtype=dtype)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class Counting:
    """Counts what runs inside its block; may be asked in the middle, too.

    Without ``modules`` only the total is known. Telling modules apart, torch refuses to train some networks, whose
    modules get tensors that are needed for no gradient.
    """

    def __init__(self, *, modules: bool = True) -> None:
        self._seen = _Seen()
        self._counter = FlopCounterMode(display=False, custom_mapping=_formulas(), **_RUNNING)
        if not modules:
            self._counter.mod_tracker = _NoModules()  # type: ignore[assignment]
        self._stack = ExitStack()

    def __enter__(self) -> Counting:
        # The fused encoder layer would hide its products from the counter.
        self._stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        self._stack.enter_context(self._seen)
        self._stack.enter_context(self._counter)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def macs(self, model: nn.Module) -> dict[str, int]:
        """So far, by name of the model's modules; the name of the model itself is empty and has the total."""
        root = type(model).__name__
        flops = {name: sum(by_operator.values()) for name, by_operator in self._counter.get_flop_counts().items()}
        inside = {name.removeprefix(root).removeprefix("."): n // 2 for name, n in flops.items() if name != "Global"}
        return {**inside, "": flops.get("Global", 0) // 2}

    def flops(self) -> int:
        """So far, two a multiply-accumulate."""
        return self._counter.get_total_flops()

    def uncounted(self) -> tuple[str, ...]:
        """Operators that ran without a formula and may have multiplied."""
        known = self._counter.flop_registry
        missing = {str(packet) for packet in self._seen.packets if packet not in known and _may_multiply(packet)}
        skipped = set(self._counter.get_unsupported_ops()) if _RUNNING else set[str]()
        return tuple(sorted(missing | skipped))


def _may_multiply(packet: Any) -> bool:
    namespace, _, name = packet._qualified_op_name.partition("::")
    return namespace not in ("aten", "prim", "prims") or name in _MULTIPLYING


class _NoModules:
    """In the place of torch's tracker of modules."""

    parents = frozenset({"Global"})

    def __enter__(self) -> _NoModules:
        return self

    def __exit__(self, *error: Any) -> None:
        pass


class _Seen(TorchDispatchMode):
    """Remembers which operators ran; entered before the counter, it sees them after the counter took them apart."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.packets: set[Any] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if isinstance(func, torch._ops.OpOverload):
            self.packets.add(func._overloadpacket)
        return func(*args, **(kwargs or {}))


def _formulas() -> dict[Any, Callable[..., int]]:
    """FLOPs of operators that torch has no formula for, or a wrong one; arguments are shapes."""
    aten = torch.ops.aten
    return {
        aten._fft_c2c: lambda x, dim, *_, out_shape, **__: _fourier(x, dim, 5.0),
        aten._fft_r2c: lambda x, dim, *_, out_shape, **__: _fourier(x, dim, 2.5),
        aten._fft_c2r: lambda x, dim, *_, out_shape, **__: _fourier(out_shape, dim, 2.5),
        aten.convolution_backward: _convolution_backward,
        aten.mv: lambda matrix, vector, *_, **__: 2 * prod(matrix),
        aten.addmv: lambda bias, matrix, vector, *_, **__: 2 * prod(matrix),
        aten.dot: lambda a, b, *_, **__: 2 * prod(a),
        aten.vdot: lambda a, b, *_, **__: 2 * prod(a),
    }


def _convolution_backward(
    grad: Shape, x: Shape, weight: Shape, _bias: Any, _stride: Any, _padding: Any, _dilation: Any, transposed: bool,
    _output_padding: Any, _groups: int, wanted: list[bool], **_: Any,
) -> int:  # fmt: skip
    """As much as the forward for each of the two gradients; torch's own formula forgets the groups of the weight's."""
    places = prod((x if transposed else grad)[2:])
    return 2 * grad[0] * places * prod(weight) * (bool(wanted[0]) + bool(wanted[1]))


def _fourier(shape: Shape, dim: list[int], operations: float) -> int:
    points = prod(shape[axis] for axis in dim)
    return round(operations * prod(shape) * log2(points)) if points else 0
