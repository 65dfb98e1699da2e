"""The 1x1 convolution and the norm of maps with any number of space axes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Pointwise(nn.Linear):
    """A linear map of the channels at every position: ``(batch, in, *space)`` to ``(batch, out, *space)``.

    Its weight is ``(out, in)``; weights of 1x1 convolutions, ``(out, in, 1, …)``, load too.
    """

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.bias)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        weight = state_dict.get(prefix + "weight")
        if isinstance(weight, Tensor) and weight.dim() > 2 and weight.shape[2:].numel() == 1:
            state_dict[prefix + "weight"] = weight.flatten(1)
        super()._load_from_state_dict(state_dict, prefix, *args)


class GroupedPointwise(Pointwise):
    """The same where every group of output channels sees its own group of input channels.

    Its weight is ``(out, in / groups)``.
    """

    def __init__(self, channels_in: int, channels_out: int, *, groups: int, **made: Any) -> None:
        super().__init__(channels_in // groups, channels_out, **made)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        flat = x if x.dim() == 4 else x.flatten(2).unsqueeze(2)
        out = F.conv2d(flat, self.weight[:, :, None, None], self.bias, groups=self.groups)
        return out if x.dim() == 4 else out.squeeze(2).unflatten(2, x.shape[2:])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, groups={self.groups}"


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, like: Tensor | None = None) -> Tensor:
    """``weight @ x + bias`` over channels, in the memory format of ``like``, by itself that of the map."""
    if channels_last(x if like is None else like):
        if x.device.type == "cpu" and x.dtype == torch.float32 and channels_last(x):
            # As a convolution: its library is much faster on some CPUs than that of matrix products, and never slower.
            kernel = weight[:, :, None, None]
            if x.dim() == 4:
                return F.conv2d(x, kernel, bias)
            return F.conv2d(x.flatten(2).unsqueeze(2), kernel, bias).squeeze(2).unflatten(2, x.shape[2:])
        return F.linear(x.flatten(2).mT, weight, bias).mT.unflatten(2, x.shape[2:])
    return product(weight.expand(x.shape[0], -1, -1), x.flatten(2), bias).unflatten(2, x.shape[2:])


def product(weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """``weight @ x + bias`` of ``(batch, out, in)``, ``(batch, in, n)`` and ``(out,)``."""
    return weight @ x if bias is None else torch.baddbmm(bias[:, None], weight, x)


def channels_last(x: Tensor) -> bool:
    """Whether the channels of a position lie side by side in memory; tensors that keep up with it save passes."""
    return x.stride(1) == 1 and x.shape[1] > 1 and not x.is_contiguous()


class BatchNorm(_BatchNorm):
    """Batch normalisation of a map with any number of space axes."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Every map is fine."""

    def forward(self, input: Tensor) -> Tensor:
        # torch's CPU backward is wrong for one sample whose channels come last in memory (2.15): it takes the input
        # for channels-last and the gradient for channels-first.
        return super().forward(input.contiguous() if input.shape[0] == 1 else input)
