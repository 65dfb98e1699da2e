"""Heat maps over images: one scale for every figure, from dark (nothing) to light (most), even in lightness.

The image is shown in grey and smooth, the scale laid over it in squares: one square is one position of the map.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt

from foveal.errors import ShapeError

Array = npt.NDArray[Any]

# Sixteen colours of viridis; those between are interpolated, which the eye cannot tell from the full table.
_VIRIDIS = bytes.fromhex(
    "440154 481a6c 472f7d 414487 39568c 31688e 2a788e 23888e 1f988b 22a884 35b779 54c568 7ad151 a5db36 d2e21b fde725"
)
_ANCHORS = np.frombuffer(_VIRIDIS, dtype=np.uint8).reshape(-1, 3) / 255


def colours(values: Array) -> Array:
    """Red, green and blue in 0 to 1 for values in 0 to 1, on a new last axis."""
    place = np.clip(np.nan_to_num(np.asarray(values, dtype=float)), 0, 1) * (len(_ANCHORS) - 1)
    low = np.minimum(place.astype(int), len(_ANCHORS) - 2)
    share = (place - low)[..., None]
    mixed: Array = _ANCHORS[low] * (1 - share) + _ANCHORS[low + 1] * share
    return mixed


def resized(values: Array, size: tuple[int, int]) -> Array:
    """The nearest value for each pixel of ``size``; cells keep their borders."""
    rows = ((np.arange(size[0]) + 0.5) * values.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * values.shape[1] / size[1]).astype(int)
    cells: Array = values[rows][:, columns]
    return cells


def smoothed(values: Array, size: tuple[int, int]) -> Array:
    """Values between pixels by linear interpolation, where the image grows; the nearest pixel where it shrinks."""
    if size[0] <= values.shape[0] or size[1] <= values.shape[1]:
        return resized(values, size)
    for axis, length in enumerate(size):
        count = values.shape[axis]
        place = np.clip((np.arange(length) + 0.5) * count / length - 0.5, 0, count - 1)
        low = np.minimum(place.astype(int), max(count - 2, 0))
        share = (place - low).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
        high = np.minimum(low + 1, count - 1)
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    return values


def overlay(image: Array, heat: Array, *, size: int = 128, strength: float = 0.7) -> Array:
    """Lay a map over an image.

    Args:
        image: ``(rows, columns)`` or ``(rows, columns, 3)`` in 0 to 1.
        heat: ``(rows, columns)`` of any resolution, at least 0; drawn from 0 to its own maximum.
        size: pixels of the longer side of the result.
        strength: share of the colour scale in the mixture.

    Returns:
        ``(rows, columns, 3)`` bytes.

    Raises:
        ShapeError: the image or the map has other axes.
    """
    picture = grey(as_rgb(image))
    if np.ndim(heat) != 2 or np.size(heat) == 0:
        raise ShapeError(f"overlay: heat must be (rows, columns), got shape {np.shape(heat)}. Average the heads first.")
    shape = _fitted((picture.shape[0], picture.shape[1]), size)
    picture, scaled = smoothed(picture, shape), resized(normalised(heat), shape)
    mixed = (1 - strength) * picture + strength * colours(scaled)
    return to_bytes(mixed)


def normalised(heat: Array) -> Array:
    """From 0 to the map's own maximum; a map of nothing stays 0."""
    positive: Array = np.clip(np.nan_to_num(np.asarray(heat, dtype=float)), 0, None)
    top = positive.max()
    if top > 0:
        positive /= top
    return positive


def enlarged(image: Array, *, size: int = 128) -> Array:
    """The image itself as bytes, at the size that ``overlay`` gives."""
    picture = as_rgb(image)
    return to_bytes(resized(picture, _fitted((picture.shape[0], picture.shape[1]), size)))


def as_rgb(image: Array) -> Array:
    picture: Array = np.asarray(image, dtype=float)
    if picture.ndim == 3 and picture.shape[2] == 1:
        picture = picture[..., 0]
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
        raise ShapeError(f"overlay: image must be (rows, columns) or (rows, columns, 3), got shape {np.shape(image)}.")
    clipped: Array = np.clip(np.nan_to_num(picture), 0, 1)
    return clipped


def grey(picture: Array) -> Array:
    luminance: Array = picture @ np.array([0.2126, 0.7152, 0.0722])
    return np.repeat(luminance[..., None], 3, axis=2)


def to_bytes(picture: Array) -> Array:
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _fitted(shape: tuple[int, int], size: int) -> tuple[int, int]:
    factor = size / max(shape)
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def png(picture: Array) -> bytes:
    """Bytes of a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", optimize=True)
    return file.getvalue()


def data_uri(picture: Array) -> str:
    """The PNG as an address that needs no file."""
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode("ascii")
