"""Which calls the Triton kernels of each operation take, told without importing their operators.

Registering an operator that torch.compile looks into loads torch's compiler, so that waits for the first call.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from foveal.kernels.triton.load import why_not, why_not_type

WIDEST, MOST_SLOTS = 25, 256
# Both matrices, the channel and what is between them stay in registers and shared memory.
LONGEST = 64


def local_why_not(q: Tensor, k: Tensor, v: Tensor, kernel_size: Sequence[int]) -> str | None:
    """None where the kernels take the call, else the reason."""
    if max(kernel_size) > WIDEST:
        return f"its windows go up to {WIDEST}, got {max(kernel_size)}"
    return why_not(q, k, v)


def external_why_not(x: Tensor, memory_key: Tensor, memory_value: Tensor) -> str | None:
    """None where the kernels take the call, else the reason."""
    slots = memory_key.shape[-2]
    if slots > MOST_SLOTS:
        return f"its memories have up to {MOST_SLOTS} slots, got {slots}"
    return why_not_type(x)


def explicit_why_not(v: Tensor, *, decay: str, mask: Tensor | None) -> str | None:
    """None where the kernel takes the call, else the reason."""
    if decay not in ("gaussian", "manhattan"):
        return f"decay {decay!r} is no product over the axes"
    reason = why_not_type(v)
    if reason is not None:
        return reason
    if len(v.shape) > 5:
        return "it has no kernel for three space axes"
    if max(v.shape[3:]) > LONGEST:
        return f"its axes go up to {LONGEST} positions, got {max(v.shape[3:])}"
    return None if mask is None else "it takes no mask"
