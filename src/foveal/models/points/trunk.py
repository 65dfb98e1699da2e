"""From points to features: embeddings of points and of neighbourhoods, then attention layer upon attention layer.

Paper: Guo et al., PCT: Point Cloud Transformer (2021), section 3; the layout of its port to PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from foveal.errors import ShapeError
from foveal.functional.inputs import check_tensor
from foveal.layers.base import check_sizes
from foveal.layers.pointwise import BatchNorm, Pointwise
from foveal.models.points.neighbours import farthest_points, gather_points, nearest_points


class Projection(nn.Sequential):
    """A linear map of the channels, batch normalisation, an activation: ``(batch, in, *space)``."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        bias: bool = False,
        slope: float = 0.0,
        linear: type[Pointwise] = Pointwise,
    ) -> None:
        act = nn.LeakyReLU(slope) if slope else nn.ReLU()
        super().__init__(linear(channels_in, channels_out, bias=bias), BatchNorm(channels_out), act)


class PointEmbedding(nn.Sequential):
    """Every point by itself: ``(batch, in_chans, n)`` to ``(batch, channels, n)``."""

    def __init__(self, in_chans: int, channels: int) -> None:
        super().__init__(Projection(in_chans, channels), Projection(channels, channels))


@dataclass(frozen=True)
class Grouping:
    """How many points are sampled, how many neighbours each of them looks at, and the channels that come out."""

    points: int
    neighbours: int
    channels: int


class SampledNeighbours(nn.Module):
    """Fewer points, each with the greatest features of its neighbourhood.

    A neighbour's features are its difference to the sampled point beside that point's own.
    """

    def __init__(self, channels: int, grouping: Grouping) -> None:
        super().__init__()
        self.grouping = grouping
        wide = grouping.channels
        self.local = nn.Sequential(Projection(2 * channels, wide), Projection(wide, wide))

    def forward(self, xyz: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """``(batch, 3, n)`` and ``(batch, channels, n)`` to those of the sampled points."""
        chosen = farthest_points(xyz, self.grouping.points)
        centres = gather_points(xyz, chosen)
        near = gather_points(features, nearest_points(xyz, centres, self.grouping.neighbours))
        own = gather_points(features, chosen).unsqueeze(3)
        grouped = self.local(torch.cat((near - own, own.expand_as(near)), 1))
        return centres, grouped.max(3).values


class NeighbourEmbedding(nn.Module):
    """Points, then neighbourhoods of ever fewer of them: ``(batch, in_chans, n)`` to ``(batch, channels, points)``."""

    def __init__(self, in_chans: int, channels: int, groupings: Sequence[Grouping]) -> None:
        super().__init__()
        self.points = PointEmbedding(in_chans, channels)
        stages = []
        for grouping in groupings:
            stages.append(SampledNeighbours(channels, grouping))
            channels = grouping.channels
        self.stages = nn.ModuleList(stages)
        self.fewest = max(groupings[0].points, groupings[0].neighbours)

    def forward(self, x: Tensor) -> Tensor:
        xyz, features = x[:, :3], self.points(x)
        for stage in self.stages:
            xyz, features = stage(xyz, features)
        return cast(Tensor, features)

    def places(self, x: Tensor) -> Tensor:
        """Coordinates ``(batch, 3, points)`` of the points that are left."""
        xyz = x[:, :3]
        for stage in self.stages:
            xyz = gather_points(xyz, farthest_points(xyz, cast(SampledNeighbours, stage).grouping.points))
        return xyz


class PointTrunk(nn.Module):
    """Features ``(batch, width, points)`` of clouds ``(batch, in_chans, n)``, coordinates first.

    Args:
        embedding: what the first attention sees.
        attention: makes a layer for a number of channels.
        channels: of the attention layers.
        depth: attention layers; the outputs of all of them are fused.
        width: channels of the result.
        in_chans: of a point, the three coordinates first.
        mixed: two projections between embedding and attention, and the embedding is fused with the outputs: full PCT.
    """

    def __init__(
        self,
        embedding: nn.Module,
        attention: Callable[[int], nn.Module],
        *,
        channels: int,
        depth: int,
        width: int,
        in_chans: int,
        mixed: bool,
    ) -> None:
        super().__init__()
        check_sizes("PointTrunk", channels=channels, depth=depth, width=width)
        self.in_chans, self.channels, self.width = in_chans, channels, width
        self.fewest = int(getattr(embedding, "fewest", 1))
        self.embedding = embedding
        self.mix = PointEmbedding(channels, channels) if mixed else None
        self.layers = nn.ModuleList(attention(channels) for _ in range(depth))
        self.fuse = Projection((depth + mixed) * channels, width, slope=0.2)

    def forward(self, points: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(self._checked(points))
        x = embedded if self.mix is None else self.mix(embedded)
        outputs: list[Tensor] = []
        for layer in self.layers:
            x = layer(x)
            outputs.append(x)
        fused: Tensor = self.fuse(torch.cat(outputs if self.mix is None else [*outputs, embedded], 1))
        return fused

    def places(self, points: Tensor) -> Tensor:
        """Where the positions of the attention layers and of the features lie: ``(batch, 3, points)``."""
        points = self._checked(points)
        return self.embedding.places(points) if isinstance(self.embedding, NeighbourEmbedding) else points[:, :3]

    def _checked(self, points: Tensor) -> Tensor:
        check_tensor("points", "the clouds", points)
        if points.dim() != 3 or points.shape[1] != self.in_chans or points.shape[2] == 0:
            raise ShapeError(
                f"points: clouds must be (batch, {self.in_chans}, n), got {tuple(points.shape)}. Clouds of shape "
                f"(batch, n, {self.in_chans}) become that by .mT."
            )
        if points.shape[2] < self.fewest:
            raise ShapeError(
                f"points: this network samples {self.fewest} points, got clouds of {points.shape[2]}. "
                "Resample them to more, or build it with smaller groupings."
            )
        return points
