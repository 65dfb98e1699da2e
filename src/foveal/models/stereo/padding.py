"""Images of any size for a network that wants multiples: zeros on the top and on the right, as PSMNet is tested."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from foveal.errors import ShapeError
from foveal.layers.base import check_sizes


def pad_to(images: Tensor, multiple: int = 16) -> Tensor:
    """Zeros on the top and on the right until rows and columns are multiples.

    Both images of a pair get the same, so disparities do not change; pad what is already normalised.

    Args:
        images: ``(..., rows, columns)``.
        multiple: of pixels.
    """
    check_sizes("pad_to", multiple=multiple)
    if images.dim() < 2:
        raise ShapeError(f"pad_to: images must be (..., rows, columns), got {tuple(images.shape)}. Add the axes.")
    rows, columns = images.shape[-2:]
    return F.pad(images, (0, -columns % multiple, -rows % multiple, 0))


def crop_to(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """What ``pad_to`` added taken away again.

    Args:
        maps: ``(..., rows, columns)``, disparities say.
        size: rows and columns of the images before.

    Raises:
        ShapeError: the maps are smaller.
    """
    rows, columns = maps.shape[-2:]
    if size[0] > rows or size[1] > columns:
        raise ShapeError(
            f"crop_to: maps must be at least {tuple(size)}, got {(rows, columns)}. Give the size before padding."
        )
    return maps[..., rows - size[0] :, : size[1]]
