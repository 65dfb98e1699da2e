"""Where a map comes from: a tensor, an array, a file or bands one after the other, always read as bands of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveal.errors import DataError, OptionError, ShapeError

Band = tuple[int, Tensor]
"""The band's first row, and ``(batch, channels, rows, width)``."""


class Source:
    """A map ``(batch, channels, height, width)`` in bands.

    Args:
        given: a tensor, anything with a shape that is cut by slices (arrays of NumPy, h5py, zarr), the path of a
            ``.npy`` file, or bands that can be walked through several times. Without a batch axis it is one map.
        device: where bands are put.
    """

    def __init__(self, given: Any, device: torch.device) -> None:
        self._device = device
        self._given = _opened(given)
        self._whole = hasattr(self._given, "shape")
        shape = tuple(self._given.shape) if self._whole else _shape_of_bands(self._given)
        if len(shape) not in (3, 4) or 0 in shape[-3:]:
            raise ShapeError(
                "streaming.run: the map must be (batch, channels, height, width) or (channels, height, width), only "
                f"the batch empty, got {shape}."
            )
        self.single = len(shape) == 3
        self.shape: tuple[int, int, int, int] = (1, *shape) if self.single else shape  # type: ignore[assignment]
        self.dtype = self._read(0, 1).dtype if self._whole else _tensor(next(iter(self._given))).dtype

    @property
    def place(self) -> torch.device:
        """Where the map lies: the device of a tensor, else the CPU."""
        return self._given.device if isinstance(self._given, Tensor) else torch.device("cpu")

    def bands(self, rows: int) -> Iterator[Band]:
        """All bands from the top, of at most so many rows."""
        if self._whole:
            height = self.shape[2]
            for start in range(0, height, rows):
                yield start, self._as_map(self._read(start, min(start + rows, height)))
            return
        start = 0
        for given in self._given:
            for part in _tensor(given).split(rows, -2):
                yield start, self._as_map(part.to(self._device, copy=True))
                start += part.shape[-2]
        if start != self.shape[2]:
            raise DataError(
                f"streaming.run: the bands have {start} rows at this walk and had {self.shape[2]} at the first. "
                "Pass bands that stay the same."
            )

    def _read(self, start: int, stop: int) -> Tensor:
        leading = (slice(None),) * (len(self._given.shape) - 2)
        band = self._given[(*leading, slice(start, stop), slice(None))]
        # A band is copied once, so that passes over it read memory and not a file, and the map may be written over.
        if isinstance(band, Tensor):
            return band.detach().to(self._device, copy=True)
        return _tensor(np.array(band)).to(self._device)

    def _as_map(self, band: Tensor) -> Tensor:
        return (band.unsqueeze(0) if self.single else band).contiguous()


def _opened(given: Any) -> Any:
    if isinstance(given, (str, Path)):
        path = Path(given)
        if path.suffix != ".npy" or not path.is_file():
            raise DataError(
                f"streaming.run: the source must be an existing .npy file, got {path}. Open other files and pass "
                "the array."
            )
        return np.load(path, mmap_mode="r")
    if hasattr(given, "shape"):
        return given
    if not isinstance(given, Iterable):
        raise ShapeError(
            f"streaming.run: the source must be a tensor, an array, a .npy file or bands, got {type(given).__name__}."
        )
    if iter(given) is given:
        raise OptionError(
            f"streaming.run: bands are walked through more than once, got {type(given).__name__}, which ends. Pass a "
            "list, or an object whose __iter__ starts anew."
        )
    return given


def _shape_of_bands(bands: Iterable[Any]) -> tuple[int, ...]:
    """That of the map; every band must have the same sizes but for its rows."""
    first: tuple[int, ...] | None = None
    height = 0
    for band in bands:
        shape = tuple(band.shape)
        if first is None:
            first = shape
        if len(shape) not in (3, 4) or (*shape[:-2], shape[-1]) != (*first[:-2], first[-1]):
            raise ShapeError(
                f"streaming.run: bands must be (…, channels, rows, width), equal but for their rows, got {shape} "
                f"after {first}."
            )
        height += shape[-2]
    if first is None:
        raise ShapeError("streaming.run: there must be at least one band, got none.")
    return (*first[:-2], height, first[-1])


def _tensor(band: Any) -> Tensor:
    if isinstance(band, Tensor):
        return band.detach()
    array = np.asarray(band)
    # What torch does not take as it lies in memory.
    if not array.flags.writeable or not array.dtype.isnative or any(step < 0 for step in array.strides):
        array = np.array(array, dtype=array.dtype.newbyteorder("="))
    return torch.from_numpy(array)
