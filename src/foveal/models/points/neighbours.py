"""Farthest points, nearest points and what features stand at them: index arithmetic of point clouds.

Papers: Qi et al., PointNet++ (2017), section 3.2; Guo et al., PCT: Point Cloud Transformer (2021), section 3.3.
Departures: the first sample is the first point, as in the usual kernels, but none near the origin is passed over.
Everything is deterministic: ties go to the smaller index, and gradients of gathered features are summed in a fixed
order. Distances are taken in float32 at least. Symbols: n points, m centres, k neighbours.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from foveal.errors import OptionError, ShapeError
from foveal.functional.inputs import check_tensor, wide_dtype
from foveal.kernels.onnx import why_not_in_onnx

# Distances held at once: 4 million are 16 MB, times about six for what selection needs beside them.
HELD = 2**22


def farthest_points(xyz: Tensor, count: int) -> Tensor:
    """Indices of points each of which is farthest from those before it: O(count n) operations.

    Farthest point sampling needs the samples one after the other, so there is a loop over samples, and none over
    points or clouds.

    Args:
        xyz: coordinates ``(batch, d, n)``.
        count: samples, 1 to n. Where fewer points are distinct, one of them is repeated.

    Returns:
        ``(batch, count)``, the first point first. Points with a coordinate that is no finite number count as copies of
        the first finite one: none is taken while there are distinct finite ones, and no other distance suffers. (Data
        sets and files refuse such points; see ``foveal.data.points``.)

    Raises:
        ShapeError: the cloud has fewer points.
    """
    _check("farthest_points", "count", xyz, count)
    with torch.no_grad():
        # ONNX has no such operator: there the loop is written out.
        sampled: Tensor = (_farthest if why_not_in_onnx() is None else _one_by_one)(xyz.to(wide_dtype(xyz)), count)
    return sampled


def _one_by_one(xyz: Tensor, count: int) -> Tensor:
    finite = xyz.isfinite().all(1)
    chosen = finite.long().argmax(1, keepdim=True)
    first = xyz.gather(2, chosen[:, None].expand(-1, xyz.shape[1], -1))
    xyz = torch.where(finite[:, None], xyz, first)
    away = torch.full_like(xyz[:, 0], torch.inf)
    samples = [chosen]
    for _ in range(count - 1):
        last = xyz.gather(2, chosen[:, None].expand(-1, xyz.shape[1], -1))
        away = torch.minimum(away, (xyz - last).square().sum(1))
        chosen = away.argmax(1, keepdim=True)
        samples.append(chosen)
    return torch.cat(samples, 1)


# One operator for torch.compile and torch.export, which would write out hundreds of steps of the loop.
_farthest = torch.library.custom_op("foveal::farthest_points", _one_by_one, mutates_args=())


@_farthest.register_fake
def _(xyz: Tensor, count: int) -> Tensor:
    return xyz.new_empty((xyz.shape[0], count), dtype=torch.long)


@register_flop_formula(torch.ops.foveal.farthest_points)
def _(*_: Any, **__: Any) -> int:
    """Distances are taken coordinate by coordinate, and what goes element by element is not counted."""
    return 0


def nearest_points(xyz: Tensor, centres: Tensor, count: int, *, held: int = HELD) -> Tensor:
    """Indices of the points nearest to each centre, nearest first, of equally near ones the smaller index first.

    Args:
        xyz: coordinates ``(batch, d, n)``.
        centres: ``(batch, d, m)``.
        count: neighbours, 1 to n; a centre that is a point is its own neighbour.
        held: distances in memory at once, over the clouds of the batch; centres are taken in slices.

    Returns:
        ``(batch, m, count)``. Points with NaN come after all others, in their order; a centre with NaN has the first
        points.

    Raises:
        ShapeError: the cloud has fewer points, or the shapes disagree.
    """
    _check("nearest_points", "count", xyz, count)
    if centres.dim() != 3 or centres.shape[:2] != xyz.shape[:2]:
        raise ShapeError(
            f"nearest_points: centres must be {(*xyz.shape[:2], 'm')}, as many coordinates as the points, "
            f"got {tuple(centres.shape)}."
        )
    length = max(1, held // max(1, xyz.shape[0] * xyz.shape[2]))
    with torch.no_grad():
        xyz, centres = xyz.to(wide_dtype(xyz)), centres.to(wide_dtype(xyz))
        return torch.cat([_nearest(xyz, part, count) for part in centres.split(length, 2)], 1)


def _nearest(xyz: Tensor, centres: Tensor, count: int) -> Tensor:
    """One slice of the centres. Selection by value leaves ties open, so a second one is over keys that are unique."""
    # Differences, not |a|^2 - 2ab + |b|^2, which loses all digits where points are close to each other.
    away = sum(((a[:, :, None] - b[:, None, :]).square() for a, b in _axes(centres, xyz)), start=_nothing(xyz))
    last = away.topk(count, largest=False).values[..., -1:]
    order = torch.arange(xyz.shape[2], device=xyz.device, dtype=torch.int32)
    n = xyz.shape[2]
    # Nearer than the last: before everything; as near: in the order of the points; farther: never.
    key = torch.where(away < last, order - n, torch.where(away == last, order, order + n))
    index = key.topk(count, largest=False).indices.sort().values
    return index.gather(2, _nearest_first(away.gather(2, index)))


def _nearest_first(away: Tensor) -> Tensor:
    if why_not_in_onnx() is None:
        return away.sort(stable=True).indices
    # ONNX has no stable sort, but its TopK takes the smaller index first.
    return away.topk(away.shape[-1], largest=False).indices


def _axes(a: Tensor, b: Tensor) -> zip[tuple[Tensor, Tensor]]:
    return zip(a.unbind(1), b.unbind(1), strict=True)


def _nothing(like: Tensor) -> Tensor:
    return like.new_zeros(())


def gather_points(features: Tensor, index: Tensor) -> Tensor:
    """Features ``(batch, channels, n)`` at ``(batch, *places)``: ``(batch, channels, *places)``, channels last.

    An embedding lookup: its gradient sums in a fixed order on every device, where that of a gather adds atomically.
    """
    batch, channels, n = features.shape
    first = torch.arange(batch, device=index.device).reshape(-1, *[1] * (index.dim() - 1)) * n
    rows = F.embedding(index + first, features.mT.reshape(batch * n, channels))
    return rows.movedim(-1, 1)


def _check(who: str, name: str, xyz: Tensor, count: Any) -> None:
    check_tensor(who, "the points", xyz)
    if xyz.dim() != 3 or xyz.shape[1] == 0:
        raise ShapeError(
            f"{who}: points must be (batch, coordinates, n), got {tuple(xyz.shape)}. Points of shape (batch, n, 3) "
            "become that by .mT."
        )
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise OptionError(f"{who}: {name} must be an integer of at least 1, got {count!r}.")
    if xyz.shape[2] < count:
        raise ShapeError(f"{who}: {count} points are asked for, got clouds of {xyz.shape[2]}. Resample them to more.")
