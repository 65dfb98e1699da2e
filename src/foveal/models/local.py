"""Stand-alone self-attention networks: residual networks whose 3x3 convolutions are local attention.

Paper: Ramachandran et al., Stand-Alone Self-Attention in Vision Models (2019), sections 4.1 and 4.3, tables 1 and 3
to 7. Departures: sinusoids added to the input of an attention are our choice of absolute positions, and a window as
large as a block that of the stem's spatial convolution; the paper states neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from foveal.errors import OptionError
from foveal.functional.inputs import check_choice
from foveal.graft import replace_
from foveal.graft.site import Site
from foveal.layers.local import LocalAttention
from foveal.layers.local_stem import LocalAttentionStem, Values
from foveal.models.catalog import Row, register
from foveal.models.resnets import DEPTHS, blank
from foveal.models.sinusoids import AddSinusoids

Positions = Literal["relative", "absolute", "none"]

R26, R38, R50 = (DEPTHS[depth][1] for depth in (26, 38, 50))


def local_resnet(
    layers: Sequence[int],
    *,
    groups: Sequence[int] = (1, 2, 3, 4),
    kernel_size: int = 7,
    heads: int = 8,
    positions: Positions = "relative",
    content: bool = True,
    grouped: bool = False,
    stem: Values | None = None,
    **options: Any,
) -> ResNet:
    """A residual network whose 3x3 convolutions are local attention.

    Args:
        layers: bottleneck blocks of each of the four groups.
        groups: which of the groups 1 to 4 attend; the others keep their convolutions.
        kernel_size: odd length of the window.
        heads: of every attention in the trunk.
        positions: ``"relative"`` tables, ``"absolute"`` sinusoids added to what an attention sees, or ``"none"``.
        content: False takes the logits from positions alone.
        grouped: projections of each head's own channels, as the paper's text says; its counts are those of dense ones.
        stem: values of an attention stem, ``"mixture"`` in the paper; None keeps the convolution and the pool.
        options: of timm's ``ResNet``.

    Raises:
        OptionError: a choice is unknown, or the layer does not take it.
    """
    check_choice("local_resnet", "positions", positions, ("relative", "absolute", "none"))
    _check_groups(groups)

    def attention(site: Site) -> nn.Module:
        layer = LocalAttention.from_site(
            site,
            kernel_size=kernel_size,
            heads=heads,
            # Networks of a smaller output stride dilate their convolutions.
            dilation=cast(nn.Conv2d, site.module).dilation[0],
            relative=positions == "relative",
            content=content,
            grouped=grouped,
        )
        return nn.Sequential(AddSinusoids(), layer) if positions == "absolute" else layer

    model = ResNet(Bottleneck, tuple(layers), **options)
    if stem is not None:
        attention_stem_(model, stem)
    replace_(model, [f"layer{group}.*.conv2" for group in groups], attention, example=blank(model, 64))
    return model


def attention_stem_(model: ResNet, values: Values) -> None:
    """Let attention be the whole stem: it stands at ``conv1``, and norm, ReLU and pool are part of it."""
    like, info = next(model.parameters()), model.feature_info[0]
    made: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
    stem = LocalAttentionStem(model.in_chans, info["num_chs"], values=values, **made)
    model.conv1, model.bn1, model.act1, model.maxpool = stem, nn.Identity(), nn.Identity(), nn.Identity()
    info["reduction"] = stem.block


def _check_groups(groups: Any) -> None:
    if not isinstance(groups, (tuple, list)) or not groups or not set(groups) <= {1, 2, 3, 4}:
        raise OptionError(
            f"local_resnet: groups must name some of the groups 1 to 4, got {groups!r}. Pass (3, 4), say."
        )


_PAPER = "Ramachandran 2019"


def _attention(name: str, count: int, what: str, layers: Sequence[int] = R50, **options: Any) -> Row:
    # timm's tools adapt a convolution that takes the image; an attention stem has none.
    first = None if "stem" in options else "conv1"
    made = {"layers": layers, **options}
    what = what if what.startswith("ResNet") else f"local ResNet-50, {what}"
    return Row(f"foveal_local_{name}", _PAPER, what, count, local_resnet, made, first_conv=first)


register(
    _attention("resnet26", 10_342_632, "ResNet-26, attention for its 3x3 convolutions: table 1, 10.3M", R26),
    _attention(
        "resnet38", 14_190_632, "ResNet-38, attention for its 3x3 convolutions: table 1, prints 14.1M, 14.2M rounded",
        R38,
    ),
    _attention("resnet50", 18_038_632, "ResNet-50, attention for its 3x3 convolutions: table 1, 18.0M; table 4, 7x7"),
    _attention(
        "resnet26_attention_stem", 10_334_568, "ResNet-26 of attention alone: table 1, 10.3M", R26, stem="mixture"
    ),
    _attention(
        "resnet38_attention_stem", 14_182_568, "ResNet-38 of attention alone: table 1, prints 14.1M, 14.2M rounded",
        R38, stem="mixture",
    ),
    _attention("resnet50_attention_stem", 18_030_568, "ResNet-50 of attention alone: tables 1 and 7", stem="mixture"),
    _attention("resnet50_k3", 18_023_528, "windows of 3x3: table 4", kernel_size=3),
    _attention("resnet50_k5", 18_031_080, "windows of 5x5: table 4", kernel_size=5),
    _attention("resnet50_k9", 18_046_184, "windows of 9x9: table 4", kernel_size=9),
    _attention("resnet50_k11", 18_053_736, "windows of 11x11: table 4", kernel_size=11),
    _attention("resnet50_no_positions", 18_012_200, "logits of q.k alone: table 5", positions="none"),
    _attention(
        "resnet50_absolute_positions", 18_012_200, "fixed sinusoids added to the input, our choice of form: table 5",
        positions="absolute",
    ),
    _attention(
        "resnet50_qr_only", 16_781_160, "logits of q.r alone, no key projection: table 6, prints 16.7M, 16.8M rounded",
        content=False,
    ),
    _attention("resnet50_groups1", 25_484_648, "attention in group 1 alone: table 3, 25.5M", groups=(1,)),
    _attention(
        "resnet50_groups12", 25_095_016, "attention in groups 1 and 2: table 3, prints 25.0M, 25.1M rounded",
        groups=(1, 2),
    ),
    _attention("resnet50_groups123", 22_746_472, "attention in groups 1 to 3: table 3, 22.7M", groups=(1, 2, 3)),
    _attention("resnet50_groups34", 18_500_648, "attention in groups 3 and 4: table 3, 18.5M", groups=(3, 4)),
    _attention("resnet50_groups4", 20_849_192, "attention in group 4 alone: table 3, 20.8M", groups=(4,)),
    _attention("resnet50_groups234", 18_111_016, "attention in groups 2 to 4: table 3, 18.1M", groups=(2, 3, 4)),
    _attention(
        "resnet50_standalone_stem", 18_029_800, "attention stem whose values ignore the place: table 7", stem="plain"
    ),
    _attention(
        "resnet50_conv_values_stem", 18_032_680, "attention stem with values of a convolution, 4x4 by choice: table 7",
        stem="conv",
    ),
    _attention(
        "resnet50_literal", 14_737_768, "projections grouped by head as the text says, 14.7M; the paper prints 18.0M",
        grouped=True,
    ),
)  # fmt: skip
