"""EAMLP: a tokens-to-token network whose every attention is external.

Paper: Guo et al., Beyond Self-attention: External Attention using Two Linear Layers (2021), its network for ImageNet.
The layout is that of the authors' code: heads are 64 wide after an expansion by 4, memories of 64 slots with biases are
shared by the heads of a block. Departures: positions are computed for the image at hand, so they are in no state dict
(the authors' 6.15 million parameters of EAMLP-7 count a fixed table of 50 432 numbers), and images of any size run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from timm.layers import DropPath, Mlp, trunc_normal_
from timm.models import checkpoint
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from foveal.errors import OptionError, ShapeError
from foveal.layers.base import check_sizes
from foveal.layers.external import MultiHeadExternalAttention
from foveal.models.catalog import Row, register
from foveal.models.eamlp_keys import own_keys
from foveal.models.eamlp_tokens import Tokens, sinusoids


class Block(nn.Module):
    """x + attention(norm(x)), then x + perceptron(norm(x)); tokens ``(batch, N, D)``."""

    def __init__(self, width: int, *, mlp_ratio: float, drop: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = MultiHeadExternalAttention(width)
        self.drop = nn.Dropout(drop)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio), drop=drop)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.drop(self.attention(self.norm1(x).mT).mT))
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return out


class EAMLP(nn.Module):
    """Images of any size to classes, by way of a class token among the tokens of the image.

    Args:
        num_classes: 0 leaves out the head.
        in_chans: channels of the image.
        img_size: rows and columns that the model is meant for; no weight depends on it.
        width: of a token.
        depth: blocks after the tokens.
        mlp_ratio: width of a block's perceptron over that of a token.
        drop_rate: dropout of positions, attentions and perceptrons.
        drop_path_rate: share of samples for which the last block is left out in training; less for those before.
        token_drop_rate: dropout in the two blocks between the splits.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int | Sequence[int] = 224,
        *,
        width: int = 256,
        depth: int = 7,
        mlp_ratio: float = 2.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        token_drop_rate: float = 0.1,
    ) -> None:
        super().__init__()
        check_sizes("EAMLP", width=width, depth=depth)
        if width % 16:
            near = max(16, round(width / 16) * 16)
            raise OptionError(f"EAMLP: width must be a multiple of 16, for heads of 64, got {width}. Use {near}, say.")
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        self.in_chans, self.num_features, self.head_hidden_size = in_chans, width, width
        self.tokens = Tokens(in_chans, width, dropout=token_drop_rate)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_drop = nn.Dropout(drop_rate)
        rates = [drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(width, mlp_ratio=mlp_ratio, drop=drop_rate, drop_path=rate) for rate in rates)
        self.norm: nn.Module = nn.LayerNorm(width)
        self.grad_checkpointing = False
        self.feature_info = [{"module": f"blocks.{i}", "num_chs": width, "reduction": 16} for i in range(depth)]
        self.reset_classifier(num_classes)
        self.apply(_start)
        trunc_normal_(self.cls_token, std=0.02)
        cast(Any, self).register_load_state_dict_pre_hook(_load_authors)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """All tokens ``(batch, 1 + N, width)`` after the last norm, the class token first."""
        tokens, _ = self._embed(x)
        for block in self.blocks:
            tokens = self._run(block, tokens)
        out: Tensor = self.norm(tokens)
        return out

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The class token, and unless ``pre_logits`` the classes that it gives."""
        first = x[:, 0]
        return first if pre_logits else self.head(first)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """What blocks put out, as timm's transformers give it: maps, or tokens, with the class token where asked."""
        if output_fmt not in ("NCHW", "NLC"):
            raise OptionError(f"EAMLP: output_fmt must be 'NCHW' or 'NLC', got {output_fmt!r}.")
        taken, last = feature_take_indices(len(self.blocks), indices)
        tokens, grid = self._embed(x)
        found: list[Any] = []
        for i, block in enumerate(self.blocks[: last + 1] if stop_early else self.blocks):
            tokens = self._run(block, tokens)
            if i in taken:
                kept = self.norm(tokens) if norm else tokens
                image = kept[:, 1:]
                image = image.mT.unflatten(2, grid).contiguous() if output_fmt == "NCHW" else image
                found.append((image, kept[:, :1]) if return_prefix_tokens else image)
        return found if intermediates_only else (self.norm(tokens), found)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Leave out the blocks that these outputs do not need."""
        taken, last = feature_take_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: last + 1]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0)
        return list(taken)

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new head; 0 classes leave it out."""
        if global_pool not in (None, "token"):
            raise OptionError(f"EAMLP: its head reads the class token, so global_pool is 'token', got {global_pool!r}.")
        self.num_classes = num_classes
        self.head: nn.Module = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        _start(self.head)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute blocks again in the backward pass instead of keeping what they computed."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """What timm's optimisers leave without weight decay, besides biases and norms."""
        return {"cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Parameters by depth, for timm's learning rates by layer."""
        return {"stem": r"^cls_token|^tokens", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}

    def own_keys(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of the authors' code in the keys of this model; one of this model as it is.

        Raises:
            DataError: its table of positions is another one than the sinusoids that every such model has.
        """
        return own_keys(state)

    def _embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        if x.dim() != 4 or x.shape[1] != self.in_chans or min(x.shape[2:]) < 3:
            raise ShapeError(
                f"EAMLP: images must be (batch, {self.in_chans}, rows, columns) of at least 3 by 3 pixels, "
                f"got {tuple(x.shape)}. Pad them."
            )
        tokens, grid = self.tokens(x)
        tokens = torch.cat((self.cls_token.expand(x.shape[0], -1, -1).to(tokens.dtype), tokens), 1)
        tokens = tokens + sinusoids(tokens.shape[1], self.num_features, like=tokens)
        return self.pos_drop(tokens), grid

    def _run(self, block: nn.Module, tokens: Tensor) -> Tensor:
        again = self.grad_checkpointing and torch.is_grad_enabled()
        return cast(Tensor, checkpoint(block, tokens) if again else block(tokens))


def _start(module: nn.Module) -> None:
    """Linear maps from a normal distribution of deviation 0.02, biases zero; attention has its own rule, the same."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def _load_authors(model: EAMLP, state: dict[str, Any], prefix: str, *_: Any) -> None:
    own = model.own_keys({key[len(prefix) :]: state.pop(key) for key in list(state) if key.startswith(prefix)})
    state.update({prefix + key: value for key, value in own.items()})


def _row(depth: int, parameters: int, build: Callable[..., nn.Module] = EAMLP, **options: Any) -> Row:
    return Row(
        name=f"foveal_eamlp_{depth}",
        paper="Guo 2021",
        what=f"EAMLP-{depth}: external attention in all of T2T-ViT-{depth}; parameters without the table of positions",
        parameters=parameters,
        build=build,
        options={"depth": depth, "drop_path_rate": 0.1, **options},
        first_conv=None,
        classifier="head",
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
    )


register(
    _row(7, 6_096_206, width=256, mlp_ratio=2.0),
    _row(10, 8_489_678, width=256, mlp_ratio=2.0),
    _row(12, 10_085_326, width=256, mlp_ratio=2.0),
    _row(14, 29_801_422, width=384, mlp_ratio=3.0),
    _row(19, 54_470_798, width=448, mlp_ratio=3.0),
    _row(24, 89_355_726, width=512, mlp_ratio=3.0),
)
