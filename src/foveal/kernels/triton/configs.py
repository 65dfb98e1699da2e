"""How local attention is cut into programs: by a rule of depth, window and type, or as it was tuned on this GPU.

Neither looks at the size of the map or the batch, so new sizes never tune or compile anything anew. ``make bench-gpu
TUNE=--tune`` writes the file of tuned configurations.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path

import torch

from foveal.cache import cache_folder

# Up to this depth a program's positions meet their windows on CUDA cores; matrix units would pad more than they save.
SHALLOW = 16
FORMS = ("gather", "tile")


@dataclass(frozen=True)
class Config:
    """One kernel's: its form, positions of a tile along three axes, how many keys at once, warps and stages."""

    form: str
    tile: tuple[int, int, int]
    block: int
    warps: int = 4
    stages: int = 2

    def flat(self) -> list[int]:
        """As operators take it."""
        return [FORMS.index(self.form), *self.tile, self.block, self.warps, self.stages]

    @classmethod
    def from_flat(cls, numbers: Sequence[int]) -> Config:
        form, t0, t1, t2, block, warps, stages = numbers
        return cls(FORMS[form], (t0, t1, t2), block, warps, stages)


def padded(size: int, least: int = 1) -> int:
    """The next power of two."""
    return max(least, 1 << (size - 1).bit_length())


def rule(direction: str, axes: int, depth: int, value_depth: int, window: Sequence[int], dtype: torch.dtype) -> Config:
    """By sizes alone; ``direction`` is ``forward`` or ``backward``."""
    widest = padded(max(depth, value_depth))
    if widest <= SHALLOW:
        positions = 64 if direction == "forward" else 32
        # All features of some keys of every position are held at once.
        return Config("gather", _tile(axes, positions, wide=32), max(2, 64 // widest))
    # A block of keys with all its features must fit beside the queries' in shared memory and registers.
    fits = 64 if widest * dtype.itemsize <= 128 and direction == "forward" else 32
    tile = _tile(axes, 64 if widest <= 128 else 32, wide=8)
    halo = prod(t + w - 1 for t, w in zip(tile[-axes:], window, strict=True))
    # Products of float32 in three steps hold every operand twice.
    many = widest > 128 or (dtype == torch.float32 and widest > 32)
    return Config("tile", tile, min(fits, padded(halo, 16)), 8 if many else 4)


def _tile(axes: int, positions: int, *, wide: int) -> tuple[int, int, int]:
    """So many positions, ``wide`` along the last axis, the rest shared out evenly."""
    if axes == 1:
        return 1, 1, positions
    last = min(wide, positions // 2)
    rows = positions // last
    if axes == 2:
        return 1, rows, last
    if last == 8:
        last, rows = 4, positions // 4
    first = padded(int(rows**0.5))
    return first, rows // first, last


def key_of(direction: str, axes: int, depth: int, value_depth: int, window: Sequence[int], dtype: torch.dtype) -> str:
    """Of a tuned configuration: all that the rule looks at, depths as they are padded."""
    sizes = f"{padded(depth)}x{padded(value_depth)}"
    return f"{direction} {axes}d {sizes} window {max(window)} {str(dtype).removeprefix('torch.')}"


def tuned_file(gpu: str) -> Path:
    """Where the configurations tuned on such a GPU lie."""
    return cache_folder() / f"triton-{gpu.replace(' ', '-').lower()}.json"


@cache
def tuned(path: Path) -> dict[str, Config]:
    """What the file holds, read once a process; nothing where there is none."""
    if not path.exists():
        return {}
    return {key: Config.from_flat(numbers) for key, numbers in json.loads(path.read_text())["configs"].items()}


def choose(
    direction: str,
    axes: int,
    depth: int,
    value_depth: int,
    window: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
) -> Config:
    """The tuned configuration where there is one, else the rule's."""
    sizes = (direction, axes, depth, value_depth, window, dtype)
    if device.type == "cuda" and torch.cuda.is_available():
        found = tuned(tuned_file(torch.cuda.get_device_name(device))).get(key_of(*sizes))
        if found is not None:
            return found
    return rule(*sizes)
