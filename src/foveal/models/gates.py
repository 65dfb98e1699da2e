"""ResNets with the channel gates that the papers compare with: SE, ECA and CBAM, each timm's own module.

A gate stands in timm's slot for it, ``se``: after the last norm of every block, before the addition. Keys of the state
dict are therefore those of timm's networks with gates.

Papers: Hu et al., Squeeze-and-Excitation Networks (2018); Wang et al., ECA-Net (2020); Woo et al., CBAM (2018).
Departures: none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from timm.layers import EcaModule, SEModule
from timm.layers.cbam import CbamModule
from torch import nn

from foveal.errors import OptionError
from foveal.models.catalog import Row, register
from foveal.models.resnets import resnet

REDUCTION = 16


def se_resnet(depth: int, *, bias: bool = True, **options: Any) -> nn.Module:
    """A ResNet with Squeeze-and-Excitation; ``bias`` is of its two layers, and both readings print alike."""
    return _gated(depth, partial(SEModule, rd_ratio=1 / REDUCTION, rd_divisor=1, bias=bias), options)


def eca_resnet(depth: int, *, kernel_sizes: Sequence[int], **options: Any) -> nn.Module:
    """A ResNet with Efficient Channel Attention; ``kernel_sizes`` has one size a stage."""
    if len(kernel_sizes) != 4 or any(size % 2 == 0 for size in kernel_sizes):
        raise OptionError(f"eca_resnet: kernel_sizes must be four odd sizes, one a stage, got {tuple(kernel_sizes)}.")
    first = 64 if depth == 34 else 256
    by_width = {first * 2**stage: size for stage, size in enumerate(kernel_sizes)}

    def gate(channels: int, **made: Any) -> nn.Module:
        module: nn.Module = EcaModule(kernel_size=by_width[channels], **made)
        return module

    return _gated(depth, gate, options)


def cbam_resnet(depth: int, **options: Any) -> nn.Module:
    """A ResNet with CBAM as its authors train it: spatial gates start at a half everywhere, their norms move slowly."""
    return _gated(depth, _cbam, options)


def _cbam(channels: int, **made: Any) -> nn.Module:
    gate: nn.Module = CbamModule(channels, rd_ratio=1 / REDUCTION, mlp_bias=True, **made)
    norm = cast(nn.BatchNorm2d, gate.get_submodule("spatial.conv.bn"))
    norm.momentum = 0.01
    nn.init.zeros_(norm.weight)
    return gate


def _gated(depth: int, gate: Callable[..., nn.Module], options: dict[str, Any]) -> nn.Module:
    block_args = {**(options.pop("block_args", None) or {}), "attn_layer": gate}
    return resnet(depth, block_args=block_args, **options)


_SE = "Squeeze-and-Excitation on ResNet-{}, reduction 16, with biases; prints {}M, as it would without them"
_ECA = "Efficient Channel Attention on ResNet-{}, kernels {}; prints {} units of 2^20, which Tan 2020 took for millions"
_CBAM = "CBAM on ResNet-{}, reduction 16, biases, 7x7 spatial gates; prints {}M{}"

register(
    *(
        Row(f"foveal_se_resnet{depth}", "Hu 2018", _SE.format(depth, told), count, se_resnet, {"depth": depth})
        for depth, told, count in (
            (34, "22.0", 21_958_868), (50, "28.1", 28_088_024), (101, "49.3", 49_326_872), (152, "66.8", 66_821_848),
        )
    ),
    *(
        Row(
            f"foveal_eca_resnet{depth}", "Wang 2020", _ECA.format(depth, ", ".join(map(str, sizes)), told), count,
            eca_resnet, {"depth": depth, "kernel_sizes": sizes},
        )
        for depth, sizes, told, count in (
            (34, (3, 3, 5, 7), "20.79", 21_797_744), (50, (3, 5, 5, 7), "24.37", 25_557_112),
            (101, (3, 3, 5, 7), "42.49", 44_549_317), (152, (3, 3, 5, 7), "57.40, published as 57.41,", 60_193_042),
        )
    ),
    *(
        Row(f"foveal_cbam_resnet{depth}", "Woo 2018", _CBAM.format(depth, *told), count, cbam_resnet, {"depth": depth})
        for depth, told, count in (
            (34, ("22.0", ""), 21_960_468), (50, ("28.1", ""), 28_089_624), (101, ("49.3", ""), 49_330_172),
            (152, ("66.8", ", not in the papers' tables"), 66_826_848),
        )
    ),
)  # fmt: skip
