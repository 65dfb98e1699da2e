"""A backbone with torchvision's feature pyramid, each of whose outputs is a module that attention can follow.

Keys of the state dict are torchvision's; the modules after the outputs are empty until something is grafted there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelP6P7

from foveal.graft import replace_
from foveal.graft.site import Site
from foveal.layers.local import LocalAttention
from foveal.models.detection.backbones import GROUPS

Last = Literal["pooled", "strided"]

CHANNELS = 256
LEVELS = tuple(f"fpn{level}" for level in range(1, 6))


class Outputs(nn.ModuleDict):
    """The five finished levels, each through a module of its own.

    What makes the last levels runs before that, so attention after one level is not in the input of another.
    """

    def __init__(self) -> None:
        super().__init__({name: nn.Identity() for name in LEVELS})

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [self[name](x) for name, x in zip(LEVELS, maps, strict=True)]


class PooledLevels(ExtraFPNBlock):  # type: ignore[misc]
    """P2 to P5, and P6 as every second position of P5: the pyramid of Faster and Mask R-CNN."""

    def __init__(self) -> None:
        super().__init__()
        # A module, where torchvision calls a function, so that a graft after the level sees what it gives.
        self.pool = nn.MaxPool2d(1, stride=2)
        self.outputs = Outputs()

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        return self.outputs([*results, self.pool(results[-1])]), [*names, "pool"]


class StridedLevels(LastLevelP6P7):  # type: ignore[misc]
    """P3 to P5, and P6 and P7 by strided convolutions from P5: the pyramid of RetinaNet."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)
        self.outputs = Outputs()

    def forward(self, p: list[Tensor], c: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        maps, names = super().forward(p, c, names)
        return self.outputs(maps), names


def pyramid(model: nn.Module, channels: Sequence[int], *, last: Last, width: int = CHANNELS) -> BackboneWithFPN:
    """The backbone under a pyramid of five levels, the first of them at stride 4 (``pooled``) or 8 (``strided``)."""
    first = 0 if last == "pooled" else 1
    returned = {group: str(level) for level, group in enumerate(GROUPS[first:])}
    extra = PooledLevels() if last == "pooled" else StridedLevels(width)
    return BackboneWithFPN(model, returned, list(channels[first:]), width, extra_blocks=extra)


def attending_pyramid_(model: BackboneWithFPN) -> None:
    """Local attention instead of the pyramid's 3x3 convolutions; strided ones pool by 2x2 averages after it."""
    where = ["fpn.layer_blocks.*.0", "fpn.extra_blocks.p[67]"]
    replace_(model, where, _local, example=blank(model))


def _local(site: Site) -> nn.Module:
    # The convolution's own stride, since maps of a position or two do not tell it.
    stride = cast(nn.Conv2d, site.module).stride[0]
    return LocalAttention(site.channels_in, site.channels_out, kernel_size=7, heads=8, stride=stride)


def blank(model: nn.Module) -> Tensor:
    """A small blank image to trace a backbone with."""
    return next(model.parameters()).new_zeros(1, 3, 64, 96)
