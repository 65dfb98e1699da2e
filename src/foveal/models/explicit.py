"""ResNets and MobileNetV2 with explicitly modelled attention maps beside part of their convolutions (ExpAtt).

Paper: Tan et al., Explicitly Modeled Attention Maps for Image Classification (2020), sections 3.3 and 4.
Departures: every map has a radius of its own, where the paper's figure has one in the last stage.
The text asks for a tenth of the channels, to the nearest multiple of 8; what the tables count is 8, 16, 24 and 56
channels of 64, 128, 256 and 512, which shares from 0.102 to 0.108 give, and a quarter in ResNet-34.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from foveal.graft import augment_
from foveal.graft.match import Where
from foveal.graft.site import Site
from foveal.layers.augmented import AugmentedAttention
from foveal.layers.explicit import ExplicitAttention
from foveal.models.catalog import Row, register
from foveal.models.mobilenets import FEATURES, expansions, mobilenetv2
from foveal.models.places import Place, sites_of
from foveal.models.resnets import blank, resnet

COUNTED, LITERAL = 0.105, 0.1
CONTENT_HEADS, CONTENT_DEPTH = 4, 20


class Halves(nn.Module):
    """Two attentions on one map, side by side: the paper's ablation of explicit attention together with content.

    Args:
        explicit: makes the first channels.
        content: makes the last channels.
    """

    def __init__(self, explicit: ExplicitAttention, content: AugmentedAttention) -> None:
        super().__init__()
        self.explicit = explicit
        self.content = content
        self.channels_out = explicit.channels_out + content.channels_out

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.explicit(x), self.content(x)], dim=1)


def explicit_resnet(
    depth: int, *, small: bool = False, ratio: float = COUNTED, content: bool = False, **options: Any
) -> nn.Module:
    """A ResNet whose 3x3 convolutions give part of their channels to explicit attention.

    Args:
        depth: 34, 50, 101 or 152.
        small: for 32-pixel images, with attention in all four stages instead of the last three.
        ratio: of the channels, to the nearest multiple of 8.
        content: half of the attention's channels come from dot products without positions, of 4 heads and 20 key
            channels a head. The paper states neither split nor sizes.
        options: ``decay``, ``radius``, ``per_head_radius``, ``offset`` and ``heads`` as for ``ExplicitAttention``;
            the others go to timm's ``ResNet``.
    """
    layer = _taken(options)
    model = resnet(depth, small=small, **options)
    where = sites_of(model, Place.ALL_CONVS if small else Place.CONVS, "explicit")
    _augment_(model, where, (ratio, 8), layer, content, traced=16 if small else 64)
    return model


def explicit_mobilenetv2(*, ratio: float = 0.05, widest: int = 576, **options: Any) -> nn.Module:
    """MobileNetV2 whose widening 1x1 convolutions give part of their channels to explicit attention.

    Args:
        ratio: of the channels, to the nearest multiple of 4.
        widest: convolutions from 144 up to this many channels; 960 is the last.
        options: as for ``explicit_resnet``; the others go to timm's MobileNetV2.
    """
    layer = {"heads": 4, **_taken(options)}
    model = mobilenetv2(**options)
    _augment_(model, expansions(144, widest), (ratio, 4), layer, content=False, traced=64)
    return model


def _taken(options: dict[str, Any]) -> dict[str, Any]:
    """What of the options is for the layer, taken out of them."""
    names = ("decay", "radius", "per_head_radius", "offset", "heads")
    return {name: options.pop(name) for name in names if name in options}


def _augment_(
    model: nn.Module, where: Where, share: tuple[float, int], layer: dict[str, Any], content: bool, traced: int
) -> None:
    def halves(site: Site) -> nn.Module:
        mixed = site.channels_out // 2
        explicit = ExplicitAttention(site.channels_in, mixed, stride=site.stride, **{"heads": CONTENT_HEADS, **layer})
        dots = AugmentedAttention(
            site.channels_in,
            site.channels_out - mixed,
            key_channels=CONTENT_HEADS * CONTENT_DEPTH,
            heads=CONTENT_HEADS,
            stride=site.stride,
        )
        return Halves(explicit, dots)

    build = halves if content else ExplicitAttention.like(**layer)
    augment_(model, where, build, ratio=share[0], multiple_of=share[1], example=blank(model, traced))


_RESNET = "Gaussian maps on the 3x3 convolutions of the last three stages of ResNet-{}"
_QUARTER, _TEXT = {"ratio": 0.25}, {"ratio": LITERAL}
_IMAGENET: tuple[tuple[int, str, int, dict[str, float], str], ...] = (
    (34, "", 17_316_674, _QUARTER, "a quarter of both in a block, not the text's tenth: the table's 17.3M"),
    (34, "_literal", 20_051_010, _TEXT, "a tenth of both in a block as the text says: 20.1M, not 17.3"),
    (50, "", 24_522_357, {}, "56 channels in the last: the table's 24.5M"),
    (50, "_literal", 24_618_165, _TEXT, "48 channels in the last, as the text rounds: 24.6M, not 24.5"),
    (101, "", 42_688_710, {}, "56 channels in the last: the table's 42.7M"),
    (101, "_literal", 42_784_518, _TEXT, "48 channels in the last, as the text rounds: 42.8M, not 42.7"),
    (152, "", 57_636_375, {}, "56 channels in the last: the table's 57.6M"),
    (152, "_literal", 57_732_183, _TEXT, "48 channels in the last, as the text rounds: 57.7M, not 57.6"),
)
_SMALL = "ResNet-50 for 32 pixels with attention in all four stages, {}"
_CIFAR: tuple[tuple[str, int, dict[str, Any], str], ...] = (
    ("", 22_666_164, {}, "Gaussian maps; the CIFAR tables' 22.7M"),
    ("_uniform", 22_666_148, {"decay": "uniform"}, "uniform maps, without a radius; 22.7M"),
    ("_linear", 22_666_148, {"decay": "linear"}, "maps linear in the distance, without a radius; 22.7M"),
    ("_cosine", 22_666_148, {"decay": "cosine"}, "maps with the cosine of the distance, without a radius; 22.7M"),
    ("_euclidean", 22_666_164, {"decay": "euclidean"}, "maps exponential in the Euclidean distance; 22.7M"),
    ("_manhattan", 22_666_164, {"decay": "manhattan"}, "maps exponential in the Manhattan distance; 22.7M"),
    ("_per_head_radius", 22_666_276, {"per_head_radius": True}, "ablation: a radius for each of 8 heads"),
    ("_no_offset", 22_666_164, {"offset": 0.0}, "ablation: no 1 is added to the maps"),
    ("_with_content", 23_263_284, {"content": True}, "ablation: half is dot-product attention, a split of our own"),
    ("_literal", 22_761_972, _TEXT, "48 channels in the last, as the text rounds: 22.8M, not 22.7"),
)  # fmt: skip
_MOBILE = "Gaussian maps on the widening convolutions of MobileNetV2 from 144 to {} channels; {}"

register(
    *(
        Row(f"foveal_explicit_resnet{depth}{name}", "Tan 2020", f"{_RESNET.format(depth)}, {told}", count,
            explicit_resnet, {"depth": depth, **options})
        for depth, name, count, options, told in _IMAGENET
    ),
    *(
        Row(f"foveal_explicit_resnet50_cifar{name}", "Tan 2020", _SMALL.format(told), count, explicit_resnet,
            {"depth": 50, "small": True, **options}, classes=100, size=(32, 32))
        for name, count, options, told in _CIFAR
    ),
    *(
        Row(f"foveal_explicit_mobilenetv2_100{name}", "Tan 2020", _MOBILE.format(widest, told), count,
            explicit_mobilenetv2, {"widest": widest}, first_conv="conv_stem", classifier="classifier",
            feature_cfg=FEATURES)
        for name, widest, count, told in (
            ("", 576, 3_509_156, "the Tiny ImageNet table's 3.51M, of 1000 classes"),
            ("_literal", 960, 3_516_071, "all 15 of the text: 3.52M, not 3.51"),
        )
    ),
)  # fmt: skip
