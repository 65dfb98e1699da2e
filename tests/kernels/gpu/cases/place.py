"""Where the cases run: on a GPU, or in Triton's interpreter; and what they share."""

import torch
from torch import Tensor

from foveal.kernels.triton.load import INTERPRETED

DEVICE = "cpu" if INTERPRETED else "cuda"
# A few roundings of sums over a window or over all positions.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def laid_out(shape, layout="first", dtype=torch.float32):
    """Random numbers, channels first or last, or every second element of a map whose others are NaN."""
    x = torch.randn(shape).to(DEVICE, dtype)
    if layout == "last":
        return x.movedim((1, 2), (-2, -1)).contiguous().movedim((-2, -1), (1, 2))
    if layout == "sliced":
        wide = x.new_full((*shape[:-1], 2 * shape[-1]), float("nan"))
        wide[..., ::2] = x
        return wide[..., ::2]
    return x


def with_gradients(run, tensors, upstream: Tensor | None = None):
    """The result and the gradients of all tensors."""
    leaves = [x.detach().requires_grad_() for x in tensors]
    out = run(*leaves)
    if upstream is None:
        upstream = torch.linspace(-1, 1, out.numel(), device=out.device).reshape(out.shape)
    grads = torch.autograd.grad(out, leaves, upstream.to(out.dtype), allow_unused=True)
    return [out.detach(), *(torch.zeros_like(x) if g is None else g for g, x in zip(grads, leaves, strict=True))]


def assert_near(got, wanted, dtype):
    """Every result within the type's roundings of the largest entry of the definition's in float64."""
    for place, (g, w) in enumerate(zip(got, wanted, strict=True)):
        assert g.shape == w.shape and g.dtype == dtype
        most = TOLERANCE[dtype] * max(w.abs().max().item(), 1.0) if w.numel() else 0.0
        error = (g.double() - w).abs().nan_to_num(torch.inf).max().item() if w.numel() else 0.0
        assert error <= most, f"result {place} errs by {error:.3g}, allowed is {most:.3g}"
