"""What training draws for a cloud: which points, and how they are moved; all from one generator, in a fixed order."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from foveal.data.points.options import PointAugmentation
from foveal.errors import OptionError

CUT = 3  # deviations


def taken(available: int, count: int, *, generator: Generator | None, random: bool) -> Tensor:
    """Which points stand for a cloud: indices ``(count,)`` into ``available`` ones.

    Of more, the first or random ones; of fewer, all of them before some once more: random ones, or where there is no
    generator the first again and again.
    """
    if available >= count:
        if random and generator is not None:
            return torch.randperm(available, generator=generator)[:count]
        return torch.arange(count)
    if generator is None:
        return torch.arange(count) % available
    return torch.cat((torch.arange(available), torch.randint(available, (count - available,), generator=generator)))


def unit_sphere(points: Tensor) -> Tensor:
    """The mean of ``(n, 3 or more)`` at the origin and the farthest at distance 1; one place alone stays there."""
    xyz = points[:, :3] - points[:, :3].mean(0)
    farthest = xyz.norm(dim=1).max()
    return torch.cat((xyz / farthest.clamp_min(torch.finfo(xyz.dtype).tiny), points[:, 3:]), 1)


def augmented(points: Tensor, options: PointAugmentation, generator: Generator) -> tuple[Tensor, Tensor]:
    """A cloud ``(n, 3 or 6)`` as training sees it, and which of its points stand where: ``(n,)``.

    Every draw is made whatever the options say, so that one option does not change what another one draws.
    """
    n = len(points)
    turn = rotation(options.rotation, generator)
    noise = torch.randn(n, 3, generator=generator).clamp(-CUT, CUT) * options.jitter
    share, lost = torch.rand(1, generator=generator) * options.dropout, torch.rand(n, generator=generator)
    low, high = options.scale
    scale = low + (high - low) * torch.rand(3, generator=generator)
    shift = (2 * torch.rand(3, generator=generator) - 1) * options.shift
    order = torch.randperm(n, generator=generator)
    index = torch.where(lost < share, 0, torch.arange(n))
    index = index[order] if options.shuffle else index
    xyz = (points[:, :3] @ turn.mT + noise)[index] * scale + shift
    if points.shape[1] == 3:
        return xyz, index
    normals = (points[:, 3:] @ turn.mT)[index] / scale
    return torch.cat((xyz, torch.nn.functional.normalize(normals, dim=1)), 1), index


def rotation(kind: str, generator: Generator) -> Tensor:
    """``(3, 3)``: the identity, a turn about the second axis, or any turn, all equally likely."""
    four = torch.randn(4, generator=generator)
    if kind == "none":
        return torch.eye(3)
    if kind == "vertical":
        four = four * torch.tensor([1.0, 0.0, 1.0, 0.0])
    # The rotation of a unit quaternion: uniform where its four numbers, or for one axis its two, are normal.
    w, x, y, z = torch.nn.functional.normalize(four, dim=0).tolist()
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return torch.tensor(rows)


def check(options: PointAugmentation) -> None:
    """Raise OptionError where an option is out of range."""
    if options.rotation not in ("none", "vertical", "any"):
        raise OptionError(f"load: there is no rotation {options.rotation!r}. Use none, vertical or any.")
    if not 0 <= options.dropout < 1:
        raise OptionError(f"load: dropout must be at least 0 and below 1, got {options.dropout}. Use 0.875, say.")
    for name, value in (("jitter", options.jitter), ("shift", options.shift)):
        if not 0 <= value < float("inf"):
            raise OptionError(f"load: {name} must be a number of at least 0, got {value}. Use 0.02, say.")
    low, high = options.scale
    if not 0 < low <= high < float("inf"):
        raise OptionError(f"load: scale must be two factors above 0, the smaller first, got {options.scale}.")
