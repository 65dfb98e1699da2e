"""EANet: a dilated residual network, one unit of external attention, and a classifier of every pixel.

Paper: Guo et al., Beyond Self-attention: External Attention using Two Linear Layers (2021), its network for
segmentation. Layout and start values are those of the authors' PyTorch code; its state dicts load. Departures: the two
memories start equal and are independent from then on, as they are in the authors' code on a GPU (on a CPU theirs share
storage until the model is moved); channels of the image, norm, attention and all widths are arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from foveal.errors import ShapeError
from foveal.layers.base import check_sizes
from foveal.models.segmentation.attention import Build, attention_of
from foveal.models.segmentation.keys import own_keys
from foveal.models.segmentation.trunk import CHANNELS, Norm, Stem, trunk

WIDTH = 512


class ConvNorm(nn.Module):
    """ReLU(norm(conv(x))), 3x3, without bias."""

    def __init__(self, channels: int, out: int, norm: Norm) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        self.bn = norm(out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class EANet(nn.Module):
    """Images ``(batch, in_chans, rows, columns)`` of any size to scores ``(batch, num_classes, rows, columns)``.

    Args:
        depth: of the residual network: 50, 101 or 152 as the authors', 10, 18 or 34.
        num_classes: 21 for Pascal VOC, 150 for ADE20K, 19 for Cityscapes.
        in_chans: channels of the image.
        output_stride: 8, the paper's main setting, or 16; 4 or 8 with the small stem.
        stem: ``"deep"`` as in the authors' code, ``"torchvision"`` whose pretrained weights fit ``backbone``, or
            ``"small"``, one convolution of stride 2, for small images.
        norm: makes the norm of a number of channels; the authors synchronise theirs: ``nn.SyncBatchNorm``.
        attention: ``"external"``, ``"none"``, another mechanism's name (see ``ATTENTIONS``), or a layer's
            ``like(...)``, which gets ``width`` channels.
        attention_options: further arguments of the named layer.
        slots: rows of the memories.
        drop_rate: share of channels left out before the classifier.
        channels: of the stages of the residual network.
        width: channels in the head, half of them before the classifier.
    """

    def __init__(
        self,
        depth: int = 50,
        *,
        num_classes: int = 21,
        in_chans: int = 3,
        output_stride: int = 8,
        stem: Stem = "deep",
        norm: Norm = nn.BatchNorm2d,
        attention: str | Build = "external",
        attention_options: Mapping[str, Any] | None = None,
        slots: int = 64,
        drop_rate: float = 0.1,
        channels: Sequence[int] = CHANNELS,
        width: int = WIDTH,
    ) -> None:
        super().__init__()
        check_sizes("eanet", num_classes=num_classes, in_chans=in_chans, slots=slots, width=width)
        self.in_chans, self.num_classes, self.output_stride = in_chans, num_classes, output_stride
        self.default_cfg = {"architecture": f"eanet ({depth})", "classifier": "fc2"}
        sizes: dict[str, Any] = {"output_stride": output_stride, "in_chans": in_chans, "channels": channels}
        self.backbone = trunk(depth, stem=stem, norm=norm, **sizes)
        narrow = max(width // 2, 1)
        self.fc0 = ConvNorm(self.backbone.num_features, width, norm)
        self.attention: nn.Module = nn.Identity()
        self.fc1 = nn.Sequential(ConvNorm(width, narrow, norm), nn.Dropout2d(drop_rate))
        self.fc2 = nn.Conv2d(narrow, num_classes, 1)
        # Last, so that all else starts with the same weights whatever stands here.
        self.attention = attention_of(
            attention, width, slots=slots, norm=norm, before=self.fc0, options=attention_options or {}
        )
        cast(Any, self).register_load_state_dict_pre_hook(_load_authors)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        scores = self.fc2(self.fc1(self.attention(self.fc0(self.backbone.forward_features(x)))))
        return F.interpolate(scores, size=x.shape[2:], mode="bilinear", align_corners=True)

    def own_keys(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of the authors' code in the keys of this model; one of this model as it is."""
        return own_keys(state)

    def _check(self, x: Tensor) -> None:
        if x.dim() != 4 or x.shape[1] != self.in_chans or 0 in x.shape[2:]:
            raise ShapeError(
                f"EANet: images must be (batch, {self.in_chans}, rows, columns), got {tuple(x.shape)}. Add or take "
                "away axes, or make the model with other in_chans."
            )
        if self.training and x.shape[0] == 1 and max(x.shape[2:]) <= self.output_stride:
            raise ShapeError(
                f"EANet: training needs more than one position for its norms, got one image of {tuple(x.shape[2:])} "
                f"at output stride {self.output_stride}. Use a larger image or batch."
            )


def eanet(depth: int = 50, **options: Any) -> EANet:
    """EANet on a residual network, with random weights.

    Args:
        depth: of the residual network; 34 846 933 parameters at 50 and 21 classes, 53 839 061 at 101.
        **options: see ``EANet``.
    """
    return EANet(depth, **options)


def _load_authors(model: EANet, state: dict[str, Any], prefix: str, *_: Any) -> None:
    own = model.own_keys({key[len(prefix) :]: state.pop(key) for key in list(state) if key.startswith(prefix)})
    state.update({prefix + key: value for key, value in own.items()})
