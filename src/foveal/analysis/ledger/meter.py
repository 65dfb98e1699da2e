"""Counts what an equation does, operator by operator, with torch's dispatcher.

Operations are those of matrix products and convolutions (two a multiply-accumulate) and of norms, activations and
sums, an element; floats are what these write. Softmax and scaling are left out, as the papers' formulas leave them out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

# Operations an element: a norm subtracts, divides, scales and shifts.
_ELEMENTS = {"add": 1, "relu": 1, "relu_": 1, "native_batch_norm": 4, "_native_batch_norm_legit_no_training": 4}
_ELEMENTS |= {"_batch_norm_no_update": 4, "cudnn_batch_norm": 4, "exp": 1}


@dataclass
class Meter:
    """What was counted: operations and floats written."""

    operations: int = 0
    floats: int = 0


class _Count(TorchDispatchMode):
    def __init__(self, meter: Meter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.meter = meter

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        written = out[0] if isinstance(out, tuple) else out
        if packet in flop_registry:
            self.meter.operations += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
            self.meter.floats += written.numel()
        elif packet.__name__ in _ELEMENTS:
            self.meter.operations += _ELEMENTS[packet.__name__] * written.numel()
            # What is done in place writes nothing new.
            self.meter.floats += 0 if packet.__name__.endswith("_") else written.numel()
        return out


def metered(run: Callable[[], object]) -> Meter:
    """Run once, on meta tensors as a rule, and say what was done."""
    meter = Meter()
    with torch.no_grad(), torch.device("meta"), _Count(meter):
        run()
    return meter
