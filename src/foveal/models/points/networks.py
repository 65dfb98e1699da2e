"""The networks of the papers on point clouds, by their names there.

Papers: Guo et al., PCT: Point Cloud Transformer (2021), table 1 and section 4; Guo et al., Beyond Self-attention
(2021), its table of point clouds (EAT). PCT is laid out as its port to PyTorch, whose 2.88 million parameters are the
published ones; the authors' later code lacks a projection and adds one of the coordinates to every layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import nn

from foveal.errors import OptionError
from foveal.functional.inputs import check_choice
from foveal.layers.base import check_sizes
from foveal.models.points.attention import NoAttention, OffsetAttention, PointExternalAttention, PointSelfAttention
from foveal.models.points.heads import PartSegmenter, PointClassifier
from foveal.models.points.trunk import Grouping, NeighbourEmbedding, PointEmbedding, PointTrunk

Attention = Literal["offset", "self", "external", "none"]
SLOTS = 64
# Of PCT, for clouds of 1024 points.
GROUPINGS = (Grouping(512, 32, 128), Grouping(256, 32, 256))


def spct(
    num_classes: int = 40, *, attention: Attention = "offset", drop_rate: float = 0.5, **options: Any
) -> PointClassifier:
    """Simple PCT: points embedded one by one, four layers of offset attention; 1,360,552 parameters.

    Args:
        num_classes: of the clouds; 40 in ModelNet40.
        attention: ``"offset"`` as published; ``"none"`` leaves it out, and keeps projection, norm, ReLU and sum.
        drop_rate: dropout of the two hidden layers of the head.
        options: ``in_chans`` (3), ``channels`` (128), ``depth`` (4), ``width`` (1024) of the trunk.
    """
    return _plain(_maker(attention, SLOTS), num_classes, drop_rate, options)


def npct(num_classes: int = 40, *, drop_rate: float = 0.5, **options: Any) -> PointClassifier:
    """Naive PCT: the same with self-attention, scaled and without the offset; as many parameters.

    The arguments are those of ``spct``. Its code was not released; this is the paper's text.
    """
    return _plain(PointSelfAttention, num_classes, drop_rate, options)


def eat(
    num_classes: int = 40, *, slots: int = 64, offset: bool = True, drop_rate: float = 0.5, **options: Any
) -> PointClassifier:
    """SPCT with external attention: 1,409,704 parameters, and 1,475,240, 1,606,312, 1,868,456 with twice the slots.

    Args:
        num_classes: as of ``spct``, and so are the options not listed here.
        slots: rows of the memories.
        offset: keep PCT's offset; False is the plain residual unit.
    """
    return _plain(_external(slots, offset), num_classes, drop_rate, options)


def pct(
    num_classes: int = 40,
    *,
    in_chans: int = 3,
    groupings: Sequence[Grouping | tuple[int, int, int]] = GROUPINGS,
    depth: int = 4,
    width: int = 1024,
    attention: Attention = "offset",
    slots: int = 64,
    drop_rate: float = 0.5,
) -> PointClassifier:
    """PCT: neighbourhoods of 512, then 256 of the points are embedded before four layers; 2,876,136 parameters.

    Which points are sampled starts with the first, so the order of the points is not without effect.

    Args:
        num_classes: of the clouds; 40 in ModelNet40.
        in_chans: of a point, its three coordinates first.
        groupings: ``(points, neighbours, channels)`` of each stage of the embedding; attention has the last channels.
        depth: attention layers.
        width: channels of the fused features.
        attention: ``"offset"`` as published, ``"self"``, ``"external"`` or ``"none"``.
        slots: of external attention.
        drop_rate: dropout of the two hidden layers of the head.
    """
    check_sizes("pct", in_chans=in_chans)
    stages = _checked(groupings)
    trunk = PointTrunk(
        NeighbourEmbedding(in_chans, 64, stages), _maker(attention, slots), channels=stages[-1].channels,
        depth=depth, width=width, in_chans=in_chans, mixed=True,
    )  # fmt: skip
    return PointClassifier(trunk, num_classes=num_classes, drop_rate=drop_rate, slope=0.2)


def part_segmenter(
    num_parts: int = 50,
    *,
    num_categories: int = 16,
    attention: Attention = "offset",
    slots: int = 64,
    offset: bool = True,
    drop_rate: float = 0.5,
    hidden: Sequence[int] = (512, 256),
    **options: Any,
) -> PartSegmenter:
    """SPCT's trunk, or that of NPCT or EAT, with a part for every point; ``model(points, categories)``.

    Args:
        num_parts: over all categories; 50 in ShapeNet-part.
        num_categories: 16 in ShapeNet-part; 0 leaves out what category a cloud is of.
        attention: ``"offset"``, ``"self"``, ``"external"`` or ``"none"``.
        slots: of external attention.
        offset: of external attention; False is its plain residual unit.
        drop_rate: dropout of the first hidden layer.
        hidden: channels of the two hidden layers of the head.
        options: as of ``spct``.
    """
    if len(hidden) != 2:
        raise OptionError(f"part_segmenter: hidden must be the channels of two layers, got {tuple(hidden)}.")
    trunk = _trunk(_maker(attention, slots, offset), **options)
    return PartSegmenter(
        trunk, num_parts=num_parts, num_categories=num_categories, drop_rate=drop_rate, hidden=(hidden[0], hidden[1])
    )


def _plain(
    attention: Callable[[int], nn.Module], num_classes: int, drop_rate: float, options: dict[str, Any]
) -> PointClassifier:
    return PointClassifier(_trunk(attention, **options), num_classes=num_classes, drop_rate=drop_rate, slope=0.0)


def _trunk(
    attention: Callable[[int], nn.Module],
    *,
    in_chans: int = 3,
    channels: int = 128,
    depth: int = 4,
    width: int = 1024,
) -> PointTrunk:
    check_sizes("points", in_chans=in_chans, channels=channels)
    embedding: nn.Module = PointEmbedding(in_chans, channels)
    return PointTrunk(
        embedding, attention, channels=channels, depth=depth, width=width, in_chans=in_chans, mixed=False
    )  # fmt: skip


def _maker(attention: Attention, slots: int, offset: bool = True) -> Callable[[int], nn.Module]:
    check_choice("points", "attention", attention, ("offset", "self", "external", "none"))
    if attention == "external":
        return _external(slots, offset)
    made: dict[str, Callable[[int], nn.Module]] = {"self": PointSelfAttention, "none": NoAttention}
    return made.get(attention, OffsetAttention)


def _external(slots: int, offset: bool) -> Callable[[int], nn.Module]:
    return lambda channels: PointExternalAttention(channels, slots=slots, offset=offset)


def _checked(groupings: Sequence[Grouping | tuple[int, int, int]]) -> list[Grouping]:
    stages = [grouping if isinstance(grouping, Grouping) else Grouping(*grouping) for grouping in groupings]
    if not stages:
        raise OptionError("pct: groupings must have a stage at least, got none. Use spct for points one by one.")
    for stage, after in zip(stages, stages[1:] + stages[-1:], strict=True):
        check_sizes("pct", points=stage.points, neighbours=stage.neighbours, channels=stage.channels)
        if stage is not after and stage.points < max(after.points, after.neighbours):
            raise OptionError(
                f"pct: a stage leaves {stage.points} points, the next asks for {max(after.points, after.neighbours)}. "
                "Let the points grow fewer from stage to stage."
            )
    return stages
