"""Where a result goes: a new tensor, an array that exists, or a file that has its name only when it is complete."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveal.errors import DataError, OptionError, ShapeError


class Sink:
    """A result ``(batch, channels, height, width)`` that is written band by band, without its batch where ``single``.

    Args:
        given: None for a new tensor; anything with a shape that takes bands by slices; or the path of a ``.npy``
            file, which is written under a temporary name beside it and renamed at the end.
        shape: of the result, with the batch.
        single: whether the map had no batch axis.
        dtype: of the bands.
        place: the device of a new tensor.
    """

    def __init__(
        self, given: Any, shape: tuple[int, int, int, int], single: bool, dtype: torch.dtype, place: torch.device
    ) -> None:
        self._shape = shape[1:] if single else shape
        self._single = single
        self._path: Path | None = None
        self.result: Any = given
        if given is None:
            self._to: Any = torch.empty(self._shape, dtype=dtype, device=place)
            self.result = self._to
        elif isinstance(given, (str, Path)):
            self._to = self._file(Path(given), dtype)
        else:
            self._to = given
            _check(given, self._shape, dtype)

    def write(self, start: int, band: Tensor) -> None:
        """Rows from ``start`` on."""
        band = band.squeeze(0) if self._single else band
        rows = (*(slice(None),) * (len(self._shape) - 2), slice(start, start + band.shape[-2]), slice(None))
        if isinstance(self._to, Tensor):
            self._to[rows] = band.to(self._to.device)
        else:
            self._to[rows] = band.cpu().numpy()

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self._to, "flush") and kind is None:
            self._to.flush()
        if self._path is None:
            return
        self._to = None
        if kind is None:
            os.replace(self._temporary, self._path)
        else:
            self._temporary.unlink(missing_ok=True)

    def _file(self, path: Path, dtype: torch.dtype) -> Any:
        if path.suffix != ".npy" or not path.parent.is_dir():
            raise DataError(
                f"streaming.run: out must be a .npy file in a folder that exists, got {path}. Make the folder, or "
                "pass an array."
            )
        if dtype == torch.bfloat16:
            raise OptionError(
                "streaming.run: a .npy file holds no bfloat16, which is the type of the map. Pass a tensor as out, "
                "say torch.from_file(…, dtype=torch.bfloat16)."
            )
        self._path = self.result = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        kind = torch.empty(0, dtype=dtype).numpy().dtype
        return np.lib.format.open_memmap(self._temporary, mode="w+", dtype=kind, shape=self._shape)


def _check(given: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(getattr(given, "shape", ())) != shape or not hasattr(given, "__setitem__"):
        came = tuple(given.shape) if hasattr(given, "shape") else type(given).__name__
        raise ShapeError(f"streaming.run: out must be None, a .npy path or take slices of {shape}, got {came}.")
    if isinstance(given, Tensor):
        fits = torch.promote_types(dtype, given.dtype) == given.dtype
    else:
        held = dtype != torch.bfloat16 and hasattr(given, "dtype")
        fits = held and np.can_cast(torch.empty(0, dtype=dtype).numpy().dtype, given.dtype)
    if not fits:
        raise ShapeError(
            f"streaming.run: out must hold {dtype} without loss, got {getattr(given, 'dtype', 'no type')}. "
            "Make it of the type of the map."
        )
