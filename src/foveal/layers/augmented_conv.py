"""A convolution and an attention layer side by side: some channels see the neighbourhood, the others everything.

Paper: arXiv:1904.09925 (Attention Augmented Convolutional Networks). The attention may be any layer; the convolution's
channels come first.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from foveal.errors import ShapeError

_Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d


class AugmentedConv(nn.Module):
    """``cat([conv(x), attention(x)], dim=1)``.

    A state dict of the whole convolution, from before it was augmented, also loads: its first filters are taken.

    Args:
        conv: gives the first channels.
        attention: gives the last channels, on the same output size.
    """

    def __init__(self, conv: _Conv, attention: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.attention = attention

    @property
    def channels_out(self) -> int | None:
        """Channels given, None where the attention does not state its own."""
        given = getattr(self.attention, "channels_out", getattr(self.attention, "channels", None))
        return self.conv.out_channels + given if isinstance(given, int) else None

    def forward(self, x: Tensor) -> Tensor:
        conv, attention = self.conv(x), self.attention(x)
        if conv.shape[2:] != attention.shape[2:]:
            raise ShapeError(
                f"AugmentedConv: the convolution gives maps of {tuple(conv.shape[2:])}, the attention of "
                f"{tuple(attention.shape[2:])}, for an input of {tuple(x.shape[2:])}. Give both the same stride."
            )
        return torch.cat([conv, attention], dim=1)

    def attention_map(self, x: Tensor, *, at: tuple[int, ...]) -> Tensor:
        """The attention's weights for the query at position ``at``."""
        return cast(Tensor, cast(Any, self.attention).attention_map(x, at=at))

    def position_map(self, x: Tensor, *, at: tuple[int, ...]) -> Tensor:
        """The same as weights on positions, for drawing."""
        return cast(Tensor, cast(Any, self.attention).position_map(x, at=at))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        for name in ("weight", "bias"):
            if prefix + name not in state_dict or f"{prefix}conv.{name}" in state_dict:
                continue
            whole = state_dict.pop(prefix + name)
            filters = self.channels_out or max(len(whole), self.conv.out_channels)
            if len(whole) != filters:
                lists[-1].append(f"AugmentedConv: {prefix}{name} has {len(whole)} filters, the layer {filters}.")
            state_dict[f"{prefix}conv.{name}"] = whole[: self.conv.out_channels]
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *lists)
