"""MobileNetV2 and the place in it where the papers put attention: the 1x1 convolutions that widen a block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import timm
from torch import nn

from foveal.graft.site import Site
from foveal.models.catalog import Row, register

# timm names the stages of a mobile network inside one container.
FEATURES = {"flatten_sequential": True}


def mobilenetv2(**options: Any) -> nn.Module:
    """timm's MobileNetV2 of width 1."""
    return cast(nn.Module, timm.create_model("mobilenetv2_100", **options))


def expansions(least: int, most: int) -> Callable[[Site], bool]:
    """Whether a site is a convolution that widens to ``least`` up to ``most`` channels."""

    def holds(site: Site) -> bool:
        return site.name.endswith(".conv_pw") and least <= site.channels_out <= most

    return holds


register(
    Row(
        "foveal_mobilenetv2_100", "Tan 2020",
        "timm's MobileNetV2; the baseline of the Tiny ImageNet table, whose 3.50M are those of 1000 classes",
        3_504_872, mobilenetv2, first_conv="conv_stem", classifier="classifier", feature_cfg=FEATURES,
    ),
)  # fmt: skip
