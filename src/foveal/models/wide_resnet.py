"""Wide residual networks, on which augmented convolution was tried for CIFAR.

Paper: Zagoruyko and Komodakis, Wide Residual Networks (2016), section 2. Departures: none.
"""

from __future__ import annotations

from typing import Any, cast

import torch.nn.functional as F
from timm.layers import create_classifier
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint_sequential

from foveal.errors import OptionError
from foveal.layers.base import check_sizes
from foveal.models.catalog import Row, register


class WideBlock(nn.Module):
    """Norm, ReLU, 3x3 convolution, twice, plus the input; where sizes change, plus a 1x1 convolution of the first ReLU.

    Its norms come before its convolutions, so there is none before the addition, and none is called ``bn2``.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, **made: Any) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels_in, **made)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False, **made)
        self.norm2 = nn.BatchNorm2d(channels, **made)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False, **made)
        self.downsample: nn.Module | None = None
        if stride > 1 or channels_in != channels:
            self.downsample = nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False, **made)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(x))
        shortcut = x if self.downsample is None else self.downsample(y)
        return cast(Tensor, shortcut + self.conv2(F.relu(self.norm2(self.conv1(y)))))


class WideResNet(nn.Module):
    """Three stages of wide blocks at full, half and a quarter of the size.

    Args:
        depth: layers that are counted: 6 a block of each stage, and 4.
        width: channels of the first stage in units of 16.
        num_classes: 0 for features alone.
        in_chans: of the image.
        global_pool: as in timm.
        drop_rate: of the features before the classifier.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        OptionError: no such network has this depth or width.
    """

    global_pool: nn.Module
    fc: nn.Module

    def __init__(
        self,
        depth: int = 28,
        width: int = 10,
        num_classes: int = 100,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        check_sizes("WideResNet", depth=depth, width=width)
        if depth < 10 or depth % 6 != 4:
            near = max(10, depth - (depth - 4) % 6)
            raise OptionError(f"WideResNet: depth must be 10, 16, 22, 28 or 6 more, got {depth}. Use {near}, say.")
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.in_chans, self.drop_rate, self.grad_checkpointing = in_chans, drop_rate, False
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False, **made)
        self.feature_info = [{"num_chs": 16, "reduction": 1, "module": "conv1"}]
        channels = 16
        for stage in range(3):
            wide, stride = 16 * width * 2**stage, 1 if stage == 0 else 2
            blocks = [WideBlock(channels, wide, stride, **made)]
            blocks += [WideBlock(wide, wide, 1, **made) for _ in range((depth - 4) // 6 - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            self.feature_info.append({"num_chs": wide, "reduction": 2**stage, "module": f"layer{stage + 1}"})
            channels = wide
        self.norm = nn.BatchNorm2d(channels, **made)
        self.act = nn.ReLU(inplace=True)
        self.num_features = self.head_hidden_size = channels
        self.reset_classifier(num_classes, global_pool)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer for another number of classes."""
        pool = cast(str, self.global_pool.pool_type) if global_pool is None else global_pool
        self.num_classes = num_classes
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=pool)
        self.global_pool.train(self.training)
        self.fc.to(self.norm.weight.device, self.norm.weight.dtype).train(self.training)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.fc

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep inputs of blocks only and compute the rest again in the backward."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """timm's groups of parameters, for rates that differ from layer to layer."""
        return {"stem": r"^conv1", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map."""
        x = self.conv1(x)
        for stage in cast("list[nn.Sequential]", [self.layer1, self.layer2, self.layer3]):
            if self.grad_checkpointing and self.training:
                x = checkpoint_sequential(stage, len(stage), x, use_reentrant=False)
            else:
                x = stage(x)
        return cast(Tensor, self.act(self.norm(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pooled features, and their classes."""
        x = F.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else cast(Tensor, self.fc(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def wide_resnet(**options: Any) -> nn.Module:
    """WRN-28-10 unless ``depth`` and ``width`` say otherwise."""
    return WideResNet(**options)


register(
    Row(
        "foveal_wrn28_10", "Zagoruyko 2016",
        "WRN-28-10, the baseline of augmented convolution on CIFAR-100; 36.5M, where Bello 2019 prints 36.3",
        36_536_884, wide_resnet, classes=100, size=(32, 32), feature_cfg={"out_indices": (0, 1, 2, 3)},
    ),
)  # fmt: skip
