"""Small residual backbones for small images, registered in timm.

They are timm's ``ResNet`` with bottleneck blocks, so that pretrained habits hold: stages are ``layer1`` to ``layer3``,
the 3x3 convolutions are ``conv2`` and the last norm of a block is ``bn3``. The stem is the 3x3 one of the CIFAR
networks.
"""

from __future__ import annotations

from typing import Any, cast

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

STEM = 32


class SmallResNet(ResNet):  # type: ignore[misc]
    """A ``ResNet`` of three stages whose stem is one 3x3 convolution of the given stride, without a pool."""

    @property
    def layer4(self) -> nn.Module:
        """Nothing: timm's forward calls a fourth stage by name, so it is there but is no submodule."""
        return nn.Identity()

    def __init__(self, *args: Any, in_chans: int = 3, stem_stride: int = 1, **options: Any) -> None:
        super().__init__(*args, in_chans=in_chans, stem_type="deep", stem_width=STEM // 2, **options)
        self.conv1 = nn.Conv2d(in_chans, STEM, 3, stride=stem_stride, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()
        for depth, info in enumerate(self.feature_info):
            info["reduction"] = stem_stride * 2 ** min(max(depth - 1, 0), options["output_stride"] // 8)


def _cfg(size: int) -> dict[str, Any]:
    return {
        "input_size": (3, size, size), "pool_size": (4, 4), "num_classes": 1000, "crop_pct": 1.0,
        "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "first_conv": "conv1", "classifier": "fc",
        "interpolation": "bilinear", "fixed_input_size": False,
    }  # fmt: skip


default_cfgs = generate_default_cfgs(
    {"foveal_resnet_mini": _cfg(8), "foveal_resnet_mini_s2": _cfg(64), "foveal_resnet_mini_s2_deep": _cfg(64)}
)


def _small(variant: str, stem_stride: int, pretrained: bool = False, **options: Any) -> nn.Module:
    sizes = {
        "block": Bottleneck, "layers": (1, 1, 1), "channels": (8, 16, 32), "output_stride": 8,
        "stem_stride": stem_stride,
    }  # fmt: skip
    return cast(nn.Module, build_model_with_cfg(SmallResNet, variant, pretrained, **(sizes | options)))


@register_model  # type: ignore[untyped-decorator]
def foveal_resnet_mini(pretrained: bool = False, **options: Any) -> nn.Module:
    """Three stages of one bottleneck block at full, half and half size: for images of 8 to 32 pixels."""
    return _small("foveal_resnet_mini", 1, pretrained, **options)


@register_model  # type: ignore[untyped-decorator]
def foveal_resnet_mini_s2(pretrained: bool = False, **options: Any) -> nn.Module:
    """The same behind a stem of stride 2: for images of 24 to 96 pixels."""
    return _small("foveal_resnet_mini_s2", 2, pretrained, **options)


@register_model  # type: ignore[untyped-decorator]
def foveal_resnet_mini_s2_deep(pretrained: bool = False, **options: Any) -> nn.Module:
    """The same with two blocks a stage: a position of its last map sees 47 pixels of the image instead of 19."""
    return _small("foveal_resnet_mini_s2_deep", 2, pretrained, **({"layers": (2, 2, 2)} | options))
