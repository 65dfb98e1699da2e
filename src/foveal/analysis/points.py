"""Points of a picture that are worth asking about."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def marked_points(picture: Tensor, count: int = 1) -> list[tuple[int, int]]:
    """Positions that differ most from the picture's middle brightness, averaged over their surroundings, far apart
    and off the border.

    Args:
        picture: ``(channels, rows, columns)``.
        count: how many; each lies at least a fifth of the shorter side from those before where there is room.
    """
    grey = picture.mean(0)
    reach = max(min(grey.shape) // 8, 1) | 1
    away = F.avg_pool2d((grey - grey.median()).abs()[None, None], reach, 1, reach // 2, count_include_pad=False)[0, 0]
    rows, columns = torch.meshgrid(*(torch.arange(length) for length in grey.shape), indexing="ij")
    for axis, place in ((0, rows), (1, columns)):
        edge = grey.shape[axis] // 10  # what a ring around the point would hang over
        away = away.masked_fill((place < edge) | (place >= grey.shape[axis] - edge), -1)
    found: list[tuple[int, int]] = []
    for _ in range(count):
        row, column = divmod(int(away.argmax()), away.shape[1])
        found.append((row, column))
        near = (rows - row) ** 2 + (columns - column) ** 2 < (min(grey.shape) / 5) ** 2
        away = away.masked_fill(near, -1)
    return found
