"""The products of modules by formula, beside what the dispatcher counted: two ways to the same number.

Layers of foveal have a formula each (``macs``); convolutions and linear layers that stand by themselves have the
textbook's. What has none, such as the attention of another library, is left to the count alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList, type_before_parametrizations

from foveal.analysis.dry import DryRun, Shape
from foveal.layers.base import AttentionLayer


@dataclass(frozen=True)
class Check:
    """Multiply-accumulates of one sample in the modules with a formula: by formula, and as counted.

    ``kinds`` are these modules by class; ``wrong`` names those whose two numbers differ; ``rest`` is what was counted
    outside them.
    """

    kinds: dict[str, int]
    formula: int
    counted: int
    rest: int
    wrong: tuple[str, ...]

    @property
    def equal(self) -> bool:
        return not self.wrong


def check(model: nn.Module, ran: DryRun) -> Check:
    """Hold a run on one sample against the formulas."""
    rows = [(name, module, _sum(module, ran.inputs[name])) for name, module in _with_formula(model, ran.inputs)]
    counted = {
        name: ran.macs.get(name, 0) - _parametrizing(model.get_submodule(name), name, ran) for name, _, _ in rows
    }
    return Check(
        kinds=dict(Counter(type_before_parametrizations(module).__name__ for _, module, _ in rows)),
        formula=sum(macs for _, _, macs in rows),
        counted=sum(counted.values()),
        rest=ran.macs.get("", 0) - sum(counted.values()),
        wrong=tuple(name for name, _, macs in rows if macs != counted[name]),
    )


def _parametrizing(module: nn.Module, name: str, ran: DryRun) -> int:
    """What making weights took inside a module, spectral norms say: it is no part of what the module does with them."""
    inside = (inner for inner, part in module.named_modules() if isinstance(part, ParametrizationList))
    return sum(ran.macs.get(f"{name}.{inner}".strip("."), 0) for inner in inside)


def _with_formula(model: nn.Module, inputs: Mapping[str, Sequence[Shape]]) -> Iterator[tuple[str, nn.Module]]:
    """Modules that ran and have a formula, none inside another."""
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        outer = name.startswith(inside) if inside else False
        if not outer and name in inputs and _has_formula(module):
            inside = (*inside, f"{name}." if name else "")
            yield name, module


def _has_formula(module: nn.Module) -> bool:
    if isinstance(module, AttentionLayer):
        return type(module).macs is not AttentionLayer.macs
    # Subclasses may compute something else.
    return type_before_parametrizations(module) in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _sum(module: nn.Module, calls: Sequence[Shape]) -> int:
    return sum(_macs(module, shape) for shape in calls)


def _macs(module: nn.Module, shape: Shape) -> int:
    if isinstance(module, AttentionLayer):
        return module.macs(shape[2:])
    if isinstance(module, nn.Linear):
        return prod(shape) * module.out_features
    assert isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    out = _convolved(module, shape[2:])
    return shape[0] * prod(out) * module.weight.numel()


def _convolved(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d, space: Shape) -> Shape:
    if conv.padding == "same":
        return space
    pads = (0,) * len(space) if isinstance(conv.padding, str) else conv.padding
    axes = zip(space, pads, conv.dilation, conv.kernel_size, conv.stride, strict=True)
    return tuple((n + 2 * pad - d * (k - 1) - 1) // s + 1 for n, pad, d, k, s in axes)
