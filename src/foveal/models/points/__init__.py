"""Networks on point clouds and what they are made of."""

from foveal.models.points.attention import OffsetAttention, PointAttention, PointExternalAttention, PointSelfAttention
from foveal.models.points.heads import PartSegmenter, PointClassifier
from foveal.models.points.neighbours import farthest_points, gather_points, nearest_points
from foveal.models.points.networks import eat, npct, part_segmenter, pct, spct
from foveal.models.points.trunk import Grouping, PointTrunk

__all__ = [
    "Grouping",
    "OffsetAttention",
    "PartSegmenter",
    "PointAttention",
    "PointClassifier",
    "PointExternalAttention",
    "PointSelfAttention",
    "PointTrunk",
    "eat",
    "farthest_points",
    "gather_points",
    "nearest_points",
    "npct",
    "part_segmenter",
    "pct",
    "spct",
]
