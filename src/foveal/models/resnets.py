"""The plain residual networks that the papers change: timm's ``ResNet`` by depth, for ImageNet and for CIFAR."""

from __future__ import annotations

from typing import Any, cast

from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from foveal.errors import OptionError
from foveal.models.catalog import Row, register

DEPTHS = {
    26: (Bottleneck, (1, 2, 4, 1)),
    34: (BasicBlock, (3, 4, 6, 3)),
    38: (Bottleneck, (2, 3, 5, 2)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class CifarResNet(ResNet):  # type: ignore[misc]
    """A ``ResNet`` whose first convolution has stride 1 and no pool after it, so that 32 pixels end as 4."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for module in self.conv1.modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
        self.maxpool = nn.Identity()
        for info in self.feature_info:
            info["reduction"] = max(1, info["reduction"] // 4)


def resnet(depth: int, *, small: bool = False, **options: Any) -> nn.Module:
    """The residual network of a depth; ``options`` are those of timm's ``ResNet``.

    Args:
        depth: 26, 34, 38, 50, 101 or 152; 26 and 38 are those of Ramachandran et al.
        small: for 32-pixel images, see ``CifarResNet``.
    """
    if depth not in DEPTHS:
        raise OptionError(f"resnet: depth must be one of {', '.join(map(str, DEPTHS))}, got {depth!r}.")
    block, layers = DEPTHS[depth]
    model: nn.Module = (CifarResNet if small else ResNet)(block, layers, **options)
    return model


def blank(model: nn.Module, side: int) -> Tensor:
    """A square image of zeros to trace a model with, on its device and of its channels."""
    return next(model.parameters()).new_zeros(1, cast(Any, model).in_chans, side, side)


register(
    *(
        Row(f"foveal_resnet{depth}", "Ramachandran 2019", f"ResNet-{depth}, the baseline of table 1", count, resnet,
            {"depth": depth})
        for depth, count in ((26, 13_696_552), (38, 19_626_792), (50, 25_557_032))
    ),
    Row(
        "foveal_resnet50_cifar", "Tan 2020",
        "ResNet-50 for 32 pixels, 7x7 stem of stride 1, no pool; the baseline of the CIFAR tables, 23.7M",
        23_712_932, resnet, {"depth": 50, "small": True}, classes=100, size=(32, 32),
    ),
)  # fmt: skip
