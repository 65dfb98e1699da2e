"""What operations share about their inputs: shapes, masks, autocast, forward-mode derivatives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from foveal.errors import OptionError, ShapeError


def check_maps(operation: str, **maps: Tensor) -> None:
    """Every tensor must be ``(batch, heads, depth, *space)`` with one to three space axes and a floating type."""
    for name, x in maps.items():
        check_tensor(operation, name, x)
        if not 4 <= x.dim() <= 6:
            raise ShapeError(
                f"{operation}: {name} must be (batch, heads, depth, *space) with 1 to 3 space axes, got {_shape(x)}. "
                "A map (B, C, H, W) becomes that by x.unflatten(1, (heads, -1)), tokens (B, N, C) by x.mT first."
            )
        if math.prod(x.shape[1:]) == 0:
            raise ShapeError(f"{operation}: only the batch of {name} may be empty, got {_shape(x)}.")
    first = next(iter(maps))
    check_beside(operation, first, maps[first], maps)


def check_tensor(operation: str, name: str, x: Tensor) -> None:
    """Must be a dense tensor of a real floating type."""
    if not isinstance(x, Tensor):
        raise ShapeError(f"{operation}: {name} must be a tensor, got {_told(x)}. Convert it with torch.as_tensor().")
    if x.layout != torch.strided:
        raise ShapeError(f"{operation}: {name} must be dense, got {x.layout}. Convert it with .to_dense().")
    if not x.is_floating_point():
        raise ShapeError(f"{operation}: {name} must be floating point, got {x.dtype}. Convert it with .float().")


def check_beside(
    operation: str, first: str, like: Tensor, tensors: Mapping[str, Tensor], *, any_type: bool = False
) -> None:
    """Tensors that meet ``like`` must be where it is, and of its type unless autocast brings all to one."""
    for name, x in tensors.items():
        check_tensor(operation, name, x)
        free = any_type or (like.device.type != "meta" and torch.is_autocast_enabled(like.device.type))
        if x.device != like.device or (x.dtype != like.dtype and not free):
            raise ShapeError(
                f"{operation}: {name} is {x.dtype} on {x.device}, {first} is {like.dtype} on {like.device}. "
                "Bring them to one type and device."
            )


def check_number(operation: str, name: str, value: Any, *, least: float = -math.inf) -> None:
    """Must be a finite Python number of at least ``least``; a tensor would lose its gradient."""
    # Comparisons, which are false for NaN: the compiler traces them, but not math.isfinite.
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and value >= least and -math.inf < value < math.inf):
        wanted = "a finite number" if least == -math.inf else f"a finite number of at least {least:g}"
        raise OptionError(
            f"{operation}: {name} must be {wanted}, got {_told(value)}."
            + (" Multiply the queries by a tensor that learns." if isinstance(value, Tensor) else "")
        )


def check_equal(operation: str, what: str, **shapes: tuple[int, ...]) -> None:
    """The named shapes must be the same."""
    first = tuple(next(iter(shapes.values())))
    if any(tuple(shape) != first for shape in shapes.values()):
        told = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise ShapeError(f"{operation}: {what} must be equal, got {told}.")


def check_mask(operation: str, mask: Tensor | None, keys: Tensor) -> None:
    """A mask is boolean ``(batch, *space)`` of the keys, True where a position may be attended to."""
    if mask is None:
        return
    wanted = (keys.shape[0], *keys.shape[3:])
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or tuple(mask.shape) != wanted:
        came = f"{mask.dtype} {_shape(mask)}" if isinstance(mask, Tensor) else _told(mask)
        raise ShapeError(
            f"{operation}: mask must be boolean {wanted}, True for positions that may be attended to, got {came}."
        )
    if mask.device != keys.device:
        raise ShapeError(f"{operation}: mask is on {mask.device}, the maps on {keys.device}. Bring them to one device.")


def check_choice(operation: str, name: str, value: str, choices: tuple[str, ...]) -> None:
    """The option must be one of its values."""
    if not isinstance(value, str) or value not in choices:
        raise OptionError(f"{operation}: {name} must be one of {', '.join(choices)}, got {value!r}.")


def refuse_forward_mode(operation: str, *tensors: Tensor) -> None:
    """A registered operator would give zero tangents without a word; say so instead."""
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return
    if any(forward_ad.unpack_dual(x).tangent is not None for x in tensors):
        raise NotImplementedError(
            f"{operation}: forward-mode derivatives are only available with backend='reference'; "
            "use that, or reverse mode."
        )


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Inside an autocast region operations take its type, as torch's own attention does; float64 stays."""
    device = tensors[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(x if x.dtype == torch.float64 else x.to(dtype) for x in tensors)


def without_autocast(x: Tensor) -> AbstractContextManager[None]:
    """A region in which no operator changes the type; meta tensors know no autocast."""
    device = x.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


def on_last(index: Iterable[int | slice]) -> tuple[Any, ...]:
    """An index into the last axes of a tensor."""
    return (..., *index)


def wide_dtype(x: Tensor) -> torch.dtype:
    """The type of softmax, sums and normalisation: float32 at least."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _told(x: object) -> str:
    return f"{type(x).__name__} {x!r}" if isinstance(x, (int, float, complex, str)) else type(x).__name__


def _shape(x: Tensor) -> str:
    return str(tuple(x.shape))
