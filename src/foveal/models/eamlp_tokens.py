"""From an image to the tokens of EAMLP: three soft splits, external attention after each of the first two.

Paper: Guo et al., Beyond Self-attention: External Attention using Two Linear Layers (2021), its network EAMLP, which is
that of Yuan et al., Tokens-to-Token ViT (2021), with other attention. Departures: none from the authors' code.
Symbols: N tokens of D channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from foveal.functional.external import external_attention, normalize_slots
from foveal.layers.base import check_sizes

# Kernel, stride and padding of the soft splits.
SPLITS = ((7, 4, 2), (3, 2, 1), (3, 2, 1))


class TokenAttention(nn.Module):
    """q + W_o(Norm(q M_k^T) M_v + b), q = W_q x: external attention that also changes the width.

    ``(batch, N, D)`` to ``(batch, N, width)``. In training, dropout between the two memories keeps it from the fused
    kernel; without dropout, and in evaluation, it is ``foveal.external_attention``.

    Args:
        channels: D of what comes in.
        width: D of what goes out.
        slots: rows of the memories, 128 in the authors' code.
        dropout: of the weights and of the projected result, 0.1 in the authors' code.
    """

    def __init__(self, channels: int, width: int = 64, *, slots: int = 128, dropout: float = 0.1) -> None:
        super().__init__()
        check_sizes("TokenAttention", channels=channels, width=width, slots=slots)
        self.dropout = dropout
        self.query = nn.Linear(channels, width)
        self.memory_key = nn.Parameter(torch.empty(slots, width))
        self.memory_value = nn.Parameter(torch.empty(slots, width))
        self.memory_value_bias = nn.Parameter(torch.zeros(width))
        self.output = nn.Linear(width, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The value memory starts as the key memory and is a parameter of its own, as the authors' is on a GPU."""
        for weight in (self.query.weight, self.output.weight, self.memory_key):
            nn.init.trunc_normal_(weight, std=0.02)
        for bias in (self.query.bias, self.output.bias, self.memory_value_bias):
            nn.init.zeros_(bias)
        with torch.no_grad():
            self.memory_value.copy_(self.memory_key)

    def forward(self, x: Tensor) -> Tensor:
        q = self.query(x)
        heads = q.mT.unsqueeze(1)
        if self.training and self.dropout:
            attended = self.memory_value.mT @ F.dropout(self.slot_maps(x), self.dropout)
        else:
            attended = external_attention(heads, self.memory_key, self.memory_value)
        out = self.output(attended.squeeze(1).mT + self.memory_value_bias.to(attended.dtype))
        return q + F.dropout(out, self.dropout, self.training)

    def slot_maps(self, x: Tensor) -> Tensor:
        """What each slot answers to, without dropout: ``(batch, 1, slots, N)``, sums over slots 1."""
        q = self.query(x)
        return normalize_slots(self.memory_key @ q.mT.unsqueeze(1)).to(q.dtype)

    def extra_repr(self) -> str:
        return f"slots={self.memory_key.shape[0]}, dropout={self.dropout}"


class TokenBlock(nn.Module):
    """Attention and a perceptron as wide as its tokens, each after a norm; only the perceptron adds its input."""

    def __init__(self, channels: int, width: int, *, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = TokenAttention(channels, width, dropout=dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Tokens(nn.Module):
    """``(batch, in_chans, *size)`` to ``(batch, N, width)`` and the rows and columns of the N tokens.

    A soft split makes a token of every window of 7x7 pixels (step 4), then of every 3x3 tokens (step 2), twice; what
    lies outside is zero. Any size of at least three pixels has tokens.

    Args:
        in_chans: channels of the image.
        width: D of the tokens.
        token_width: D between the splits.
        dropout: in both blocks.
    """

    def __init__(self, in_chans: int, width: int, *, token_width: int = 64, dropout: float = 0.1) -> None:
        super().__init__()
        check_sizes("EAMLP", in_chans=in_chans, width=width, token_width=token_width)
        self.block1 = TokenBlock(in_chans * SPLITS[0][0] ** 2, token_width, dropout=dropout)
        self.block2 = TokenBlock(token_width * SPLITS[1][0] ** 2, token_width, dropout=dropout)
        self.project = nn.Linear(token_width * SPLITS[2][0] ** 2, width)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        last: nn.Module
        for split, last in zip(SPLITS, (self.block1, self.block2, self.project), strict=True):
            kernel, step, padding = split
            size = token_grid((x.shape[2], x.shape[3]), split)
            x = last(F.unfold(x, kernel, padding=padding, stride=step).mT).mT.unflatten(2, size)
        return x.flatten(2).mT, (x.shape[2], x.shape[3])


def token_grid(size: tuple[int, int], *splits: tuple[int, int, int]) -> tuple[int, int]:
    """Rows and columns of tokens of an image after the given splits, all three where none is given."""
    rows, columns = size
    for kernel, step, padding in splits or SPLITS:
        # As torch's unfold counts them: in an exported program the two have to be seen to be equal.
        rows, columns = ((length + 2 * padding - kernel + step) // step for length in (rows, columns))
    return rows, columns


def sinusoids(count: int, width: int, *, like: Tensor) -> Tensor:
    """Fixed codes ``(count, width)`` of positions p in a row.

    Channels 2i and 2i + 1 are the sine and the cosine of p / 10000^(2i / width). Tokens are counted row by row after
    the class token, whatever the size of the image, as in the authors' code at 224 and at 384 pixels.
    """
    # In double precision, which not every device has; cosines as sines, since ONNX's runtime has no double ones.
    wide = torch.float32 if like.device.type == "mps" else torch.float64
    channel = torch.arange(width, device=like.device)
    rate = 10000.0 ** (-2.0 * (channel // 2).to(wide) / width)
    angle = torch.arange(count, device=like.device, dtype=wide)[:, None] * rate
    return torch.sin(angle + (channel % 2) * (math.pi / 2)).to(like.dtype)
