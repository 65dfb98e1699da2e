"""ResNet-50 with efficient attention, or the non-local block that it is compared with, after one or two of its stages.

Paper: Shen et al., Efficient Attention: Attention with Linear Complexities (2018), the ImageNet table.
Departures: the paper writes res1 and res2 without saying what they are. The plain names take the numbering of its
detector, in which res1 ends the first group of blocks; ``_early`` counts the stem as res1, which explains better why
the non-local rows ran out of memory. Layers follow the authors' code: an output projection and biases everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from torch import nn

from foveal.functional.inputs import check_choice
from foveal.graft import insert_
from foveal.graft.site import Site
from foveal.layers.efficient import EfficientAttention
from foveal.layers.non_local import NonLocal
from foveal.models.catalog import Row, register
from foveal.models.resnets import blank, resnet

Attention = Literal["efficient", "nonlocal"]
Normalization = Literal["softmax", "scaling"]


def attending_resnet50(
    *,
    attention: Attention,
    after: Sequence[str],
    key_channels: int = 64,
    normalization: Normalization = "softmax",
    **options: Any,
) -> nn.Module:
    """ResNet-50 with attention between all positions after some of its modules.

    Args:
        attention: ``"efficient"``, or ``"nonlocal"`` with as many value channels as the map and no pooling, which
            computes n^2 products for n positions.
        after: names of modules, ``layer1`` say.
        key_channels: of queries and keys; the paper compares 32, 64 and 128.
        normalization: ``"softmax"`` or ``"scaling"``.
        options: of timm's ``ResNet``.
    """
    check_choice("attending_resnet50", "attention", attention, ("efficient", "nonlocal"))
    model = resnet(50, **options)

    def layer(site: Site) -> nn.Module:
        if attention == "efficient":
            return EfficientAttention.from_site(site, key_channels=key_channels, normalization=normalization)
        values = site.channels_out
        return NonLocal.from_site(site, key_channels=key_channels, value_channels=values, normalization=normalization)

    insert_(model, list(after), layer, example=blank(model, 64))
    return model


_TITLES: dict[Attention, str] = {"efficient": "efficient attention", "nonlocal": "non-local blocks of 64 key channels"}
_ROWS: tuple[tuple[str, tuple[str, ...], int, int], ...] = (
    ("res1", ("layer1",), 25_721_512, 25_722_024),
    ("res2", ("layer2",), 26_148_008, 26_149_032),
    ("res12", ("layer1", "layer2"), 26_312_488, 26_314_024),
    ("res1_early", ("act1",), 25_573_672, 25_573_800),
    ("res2_early", ("layer1",), 25_721_512, 25_722_024),
    ("res12_early", ("act1", "layer1"), 25_738_152, 25_738_792),
)


def _rows() -> Iterator[Row]:
    for name, after, *counts in _ROWS:
        places = " and ".join({"act1": "act1 (the stem before its pool)"}.get(place, place) for place in after)
        paper, _, early = name.partition("_")
        reading = "if the stem is res1" if early else "in the detector's numbering"
        for (attention, title), count in zip(_TITLES.items(), counts, strict=True):
            what = f"ResNet-50 with {title} after {places}: ImageNet table, {paper} {reading}"
            options = {"attention": attention, "after": after}
            yield Row(f"foveal_{attention}_resnet50_{name}", "Shen 2018", what, count, attending_resnet50, options)


register(*_rows())
