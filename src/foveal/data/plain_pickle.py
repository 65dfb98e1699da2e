"""Reads the pickles in which CIFAR is published without running anything that they say.

A pickle is a program that may call anything it can import. This reader knows three names, those of NumPy's arrays, and
stands its own inert objects in for them; numbers, byte strings, lists and dictionaries need no names. Whatever asks for
another name is refused, and NumPy itself never sees a byte of the file before its type and length have been checked.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np

# Where NumPy 1 and 2 keep what makes an array; CIFAR's files say the first.
MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")


class RefusedError(ValueError):
    """Why a file is not read."""


class _Type:
    """Stands for numpy.dtype."""

    __slots__ = ("name",)

    def __init__(self, name: Any = None, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, which one byte has none of."""


class _Array:
    """Stands for numpy.ndarray, and holds what it would be made of."""

    __slots__ = ("state",)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Make:
    """Stands for the function that makes an empty array before its contents come."""

    __slots__ = ()

    def __call__(self, *_: Any) -> _Array:
        return _Array()

    def __setstate__(self, state: Any) -> None:
        raise RefusedError("it changes a function")


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in MODULES and name == "_reconstruct":
            return _Make()
        if module == "numpy" and name in ("ndarray", "dtype"):
            return {"ndarray": _Array, "dtype": _Type}[name]
        raise RefusedError(f"it asks for {module}.{name}, which no array of bytes needs")


def read_plain_pickle(raw: bytes) -> dict[str, Any]:
    """A dictionary of numbers, strings as bytes, lists, and arrays of bytes as ``uint8``.

    Raises:
        RefusedError: it is damaged, or holds anything else.
    """
    try:
        found = _Reader(io.BytesIO(raw), encoding="bytes").load()
    except RefusedError:
        raise
    # A damaged pickle raises nearly anything.
    except Exception as error:
        raise RefusedError(f"{type(error).__name__}: {error}") from error
    if not isinstance(found, dict):
        raise RefusedError(f"it holds a {type(found).__name__}, not a dictionary")
    names = [key.decode("latin1") if isinstance(key, bytes) else str(key) for key in found]
    return {name: _values(value) for name, value in zip(names, found.values(), strict=True)}


def _values(value: Any) -> Any:
    if not isinstance(value, _Array):
        return value
    try:
        _, shape, kind, by_columns, raw = value.state
        name = kind.name.decode() if isinstance(kind.name, bytes) else kind.name
        fits = isinstance(raw, bytes) and all(type(n) is int and n >= 0 for n in shape)
    except (AttributeError, TypeError, ValueError) as error:
        raise RefusedError("an array in it is incomplete") from error
    if name != "u1" or not fits or len(raw) != math.prod(shape):
        raise RefusedError("an array in it does not hold the bytes of its shape")
    return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if by_columns else "C")
