"""What the tests of the CPU kernels share: which can run here, and bits that must not depend on chance."""

import pytest
import torch

from foveal.kernels import cpu

needs_kernels = pytest.mark.skipif(cpu.WHY_NOT is not None, reason=str(cpu.WHY_NOT))


def same_bits(a, b):
    """Equal to the bit, NaN included."""
    ints = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return a.shape == b.shape and torch.equal(*(x.contiguous().view(ints[x.element_size()]) for x in (a, b)))


def laid_out(x, layout):
    """The same values under other strides."""
    if layout == "channels last":
        return x.movedim((1, 2), (-2, -1)).contiguous().movedim((-2, -1), (1, 2))
    if layout == "sliced":
        wide = x.new_full((x.shape[0] + 1, *(2 * s + 1 for s in x.shape[1:])), float("nan"))
        view = wide[(slice(1, None), *[slice(1, None, 2)] * (x.dim() - 1))]
        return view.copy_(x)
    if layout == "transposed":
        return x.transpose(3, -1).contiguous().transpose(3, -1)
    if layout == "heads inside":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    return x.contiguous()


LAYOUTS = ("channels first", "channels last", "sliced", "transposed", "heads inside")
