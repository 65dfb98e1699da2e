"""ResNets, MobileNetV2 and WRN-28-10 with augmented convolutions: dot products beside part of their filters (AA-Net).

Papers: Bello et al., Attention Augmented Convolutional Networks (2019), section 4; on CIFAR and in MobileNetV2 the
baseline of Tan et al., Explicitly Modeled Attention Maps for Image Classification (2020), section 4.
Symbols: upsilon = ratio, kappa = key_ratio: what attention and its keys get, as shares of a convolution's filters.
Departures: those of ``AugmentedAttention``; which convolutions, and what is rounded how, follow the printed counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from torch import nn

from foveal.errors import OptionError
from foveal.graft import augment_, replace_
from foveal.graft.match import Where
from foveal.graft.site import Site, own_channels
from foveal.layers.augmented import AugmentedAttention
from foveal.models.catalog import Row, register
from foveal.models.mobilenets import FEATURES, expansions, mobilenetv2
from foveal.models.resnets import blank, resnet
from foveal.models.wide_resnet import wide_resnet


@dataclass(frozen=True)
class Augmentation:
    """What stands beside the filters of a convolution; every builder here takes these options.

    Attributes:
        ratio: of the filters that attention replaces, to the nearest multiple of ``heads``; at 1 no filter is left.
        key_ratio: of the filters, the channels of keys and queries; twice ``ratio`` when None.
        key_depth: of these, the least a head.
        heads: of the attention.
        positions: ``relative``, or ``none``, the paper's ablation.
        img_size: rows and columns that the tables are made for; maps of other images crop or stretch them.
        tables: whether a strided convolution's are made for the size of its ``input``, which attention sees, or of its
            ``output``, as the printed counts of the ratios and of ResNet-34 demand; they are stretched then.
    """

    ratio: float = 0.1
    key_ratio: float | None = None
    key_depth: int = 20
    heads: int = 8
    positions: Literal["relative", "none"] = "relative"
    img_size: int | Sequence[int] = 224
    tables: Literal["input", "output"] = "output"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("positions", self.positions, ("relative", "none")),
            ("tables", self.tables, ("input", "output")),
        ):
            if value not in known:
                raise OptionError(f"augmented: {name} must be {' or '.join(known)}, got {value!r}.")
        if self.key_ratio is not None and not self.key_ratio > 0:
            raise OptionError(f"augmented: key_ratio must be above 0, got {self.key_ratio!r}. Pass 0.2, say.")
        sides = (self.img_size,) * 2 if isinstance(self.img_size, int) else tuple(self.img_size)
        if len(sides) != 2 or any(not isinstance(side, int) or side < 1 for side in sides):
            raise OptionError(f"augmented: img_size must be a side or (rows, columns), got {self.img_size!r}.")
        object.__setattr__(self, "img_size", sides)

    def apply_(self, model: nn.Module, where: Where, *, traced: int) -> nn.Module:
        """Augment the convolutions of a model; ``traced`` is an image's side that every stage divides evenly."""

        def layer(site: Site) -> nn.Module:
            heads, keys = self.heads, self._keys(site)
            size = None if self.positions == "none" else self._size(site, traced)
            return AugmentedAttention(
                site.channels_in, site.channels_out, key_channels=keys, heads=heads, size=size, stride=site.stride
            )

        example = blank(model, traced)
        if self.ratio == 1:
            replace_(model, where, layer, example=example)
        else:
            augment_(model, where, layer, ratio=self.ratio, multiple_of=self.heads, example=example)
        return model

    def _keys(self, site: Site) -> int:
        channels = own_channels(site.module)
        filters = site.channels_out if channels is None else channels[1]
        share = 2 * self.ratio if self.key_ratio is None else self.key_ratio
        return max(self.key_depth, round(share * filters / self.heads)) * self.heads

    def _size(self, site: Site, traced: int) -> tuple[int, ...]:
        lengths = (site.size if self.tables == "input" else site.size_out) or ()
        sides = (self.img_size,) * 2 if isinstance(self.img_size, int) else self.img_size
        return tuple(-(-side * length // traced) for side, length in zip(sides, lengths, strict=True))


def augmented_resnet(depth: int, *, small: bool = False, **options: Any) -> nn.Module:
    """A ResNet with attention beside the first 3x3 convolution of every block.

    Args:
        depth: 34, 50, 101 or 152.
        small: for 32-pixel images, with attention in all four stages instead of the last three.
        options: those of ``Augmentation``; the others go to timm's ``ResNet``.
    """
    own = _taken(options, {"img_size": 32 if small else 224})
    where = f"layer[{1 if small else 2}-4].*.{'conv1' if depth == 34 else 'conv2'}"
    return own.apply_(resnet(depth, small=small, **options), where, traced=16 if small else 64)


def augmented_mobilenetv2(*, widest: int = 576, **options: Any) -> nn.Module:
    """MobileNetV2 with attention beside the widening 1x1 convolutions from 144 up to ``widest`` channels."""
    own = _taken(options, {"heads": 4, "ratio": 0.05, "key_ratio": 0.05, "key_depth": 5})
    return own.apply_(mobilenetv2(**options), expansions(144, widest), traced=64)


def augmented_wide_resnet(**options: Any) -> nn.Module:
    """A wide ResNet with attention beside the first convolution of every block."""
    own = _taken(options, {"img_size": 32})
    return own.apply_(wide_resnet(**options), "layer?.*.conv1", traced=16)


def _taken(options: dict[str, Any], defaults: dict[str, Any]) -> Augmentation:
    """What of the options is about attention, taken out of them."""
    names = [field.name for field in fields(Augmentation)]
    return Augmentation(**{**defaults, **{name: options.pop(name) for name in names if name in options}})


def _equal(share: float) -> dict[str, float]:
    """The paper's ablation of the share."""
    return {"ratio": share, "key_ratio": share}


_RESNET = (
    "attention with relative positions beside the first 3x3 convolutions of the last three stages of ResNet-{}, {}"
)
_WIDTHS = "160 channels of keys, 16, 24 and 48 of values; prints {}M"
_EQUAL = "kappa = upsilon = {}, at least 20 key channels a head{}; prints {}M"
_ROWS: tuple[tuple[str, int, dict[str, Any], str], ...] = (
    ("34", 20_749_552, {"depth": 34, **_equal(0.25)}, _EQUAL.format(0.25, "", 20.7)),
    ("50", 25_781_872, {"depth": 50}, _WIDTHS.format(25.8)),
    ("101", 45_359_208, {"depth": 101}, _WIDTHS.format(45.4)),
    ("152", 61_558_496, {"depth": 152}, _WIDTHS.format(61.6)),
    ("50_ratio25", 24_308_208, {"depth": 50, **_equal(0.25)}, _EQUAL.format(0.25, "", 24.3)),
    ("50_ratio50", 22_347_160, {"depth": 50, **_equal(0.5)}, _EQUAL.format(0.5, "", 22.3)),
    ("50_ratio75", 20_739_976, {"depth": 50, **_equal(0.75)}, _EQUAL.format(0.75, "", 20.7)),
    ("50_ratio100", 19_388_040, {"depth": 50, **_equal(1.0)}, _EQUAL.format(1, ", no filter left", 19.4)),
)
_CIFAR = {"depth": 50, "small": True, "ratio": 0.105, "key_ratio": 0.2}

register(
    *(
        Row(f"foveal_augmented_resnet{name}", "Bello 2019", _RESNET.format(options["depth"], told), count,
            augmented_resnet, options)
        for name, count, options, told in _ROWS
    ),
    Row(
        "foveal_augmented_resnet50_cifar", "Bello 2019",
        "ResNet-50 for 32 pixels with attention in all four stages as Tan 2020 counts it, 160 channels of keys, "
        "8, 16, 24 and 56 of values; prints 23.9M",
        23_891_428, augmented_resnet, _CIFAR, classes=100, size=(32, 32),
    ),
    Row(
        "foveal_augmented_mobilenetv2_100", "Bello 2019",
        "MobileNetV2 with kappa = upsilon = 0.05, 4 heads, at least 5 key channels a head, widths 144 to 576; prints "
        "3.55M as Tan 2020, whose layout other readings give too",
        3_547_356, augmented_mobilenetv2, first_conv="conv_stem", classifier="classifier", feature_cfg=FEATURES,
    ),
    Row(
        "foveal_augmented_wrn28_10", "Bello 2019",
        "WRN-28-10, kappa = 2 upsilon = 0.2, attention beside the first convolution of every block; 36.3M from 36.5, "
        "where the paper prints 36.2 from 36.3",
        36_312_660, augmented_wide_resnet, classes=100, size=(32, 32), feature_cfg={"out_indices": (0, 1, 2, 3)},
    ),
)  # fmt: skip
