"""Disparities of pairs of files: how left and right ones are paired, measured and drawn."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby, islice
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveal.data.picture import UnreadableError, read_picture
from foveal.data.preparation import Normalisation, as_bytes
from foveal.data.stereo.pfm import write_pfm
from foveal.errors import DataError, OptionError
from foveal.tasks.headroom import GIB, bytes_of, headroom
from foveal.tasks.kind import Asked, Drawn, Opened
from foveal.tasks.predict import found
from foveal.tasks.stereo.matching import disparities
from foveal.viz.disparity import drawn

SURE = 2**16
"""Pixels that are matched without asking how much memory is left."""
PROBES = (64, 128), (128, 128)
"""Rows and columns of the pairs that are measured to know what larger ones take."""


@dataclass(frozen=True)
class _Pair:
    """Two files, their images ``(3, rows, columns)`` as bytes where they could be read, or why not."""

    left: str
    right: str = ""
    images: tuple[Tensor, Tensor] | None = None
    error: str | None = None


def answers(opened: Opened, lefts: Sequence[str], asked: Asked) -> Iterator[Drawn]:
    """The disparity of each left image, in order; those of one size go through the model together.

    Raises:
        OptionError: there are not as many right images as left ones.
        DataError: the model answers with NaN.
    """
    pairs = [pair for names in _beside(lefts, asked.right) for pair in _paired(*names)]
    return _answered(opened, pairs, asked)


def _answered(opened: Opened, pairs: Sequence[_Pair], asked: Asked) -> Iterator[Drawn]:
    read, costs = (_read(pair) for pair in pairs), _Costs(opened)
    for size, group in groupby(read, lambda pair: None if pair.images is None else tuple(pair.images[0].shape)):
        if size is None:
            yield from (Drawn(pair.left, error=pair.error) for pair in group)
            continue
        fit = costs.pairs(size)
        if fit == 0:
            told = costs.refusal(size)
            yield from (Drawn(pair.left, error=told) for pair in group)
            continue
        while batch := list(islice(group, min(asked.batch_size, fit))):
            for pair, disparity in zip(batch, _disparities(opened, batch), strict=True):
                yield _told(pair, disparity, asked.draw)


class _Costs:
    """What pairs of a size take of the memory that there is, measured on two small ones."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened

    def pairs(self, size: Sequence[int]) -> int:
        """How many go through the network together."""
        if size[1] * size[2] <= SURE:
            return max(1, SURE // (size[1] * size[2]))
        return int(headroom(self.opened.device) / self._bytes(size))

    def refusal(self, size: Sequence[int]) -> str:
        """Why not even one does."""
        asked, left = self._bytes(size) / GIB, headroom(self.opened.device) / GIB
        return (
            f"{size[1]} x {size[2]} pixels take {asked:.1f} GiB of memory to match, and {left:.1f} GiB can be had: "
            "shrink both images"
        )

    def _bytes(self, size: Sequence[int]) -> float:
        return size[1] * size[2] * self._bytes_a_pixel

    @cached_property
    def _bytes_a_pixel(self) -> float:
        few, many = (self._measured(*sides) for sides in PROBES)
        return (many - few) / (prod(PROBES[1]) - prod(PROBES[0]))

    def _measured(self, rows: int, columns: int) -> int:
        images = torch.zeros(1, 3, rows, columns, device=self.opened.device)
        with self.opened.autocast():
            with torch.no_grad():
                disparities(self.opened.model, images, images)  # what the first call alone takes is not measured
            return bytes_of(lambda: disparities(self.opened.model, images, images), self.opened.device)


@torch.no_grad()
def _disparities(opened: Opened, batch: Sequence[_Pair]) -> Tensor:
    normalise = Normalisation(tuple(opened.told["mean"]), tuple(opened.told["std"]))
    sides = zip(*(pair.images for pair in batch if pair.images is not None), strict=True)
    left, right = (normalise(torch.stack(side) / 255).to(opened.device) for side in sides)
    with opened.autocast():
        found = disparities(opened.model, left, right)
    if not bool(found.isfinite().all()):
        raise DataError(f"predict: {opened.source} answers with NaN, so its weights are no use. Train it again.")
    return found.cpu()


def _told(pair: _Pair, disparity: Tensor, draw: bool) -> Drawn:
    rows, columns = disparity.shape
    values = disparity.numpy()
    numbers = {
        name: float(f"{float(value):.6g}")
        for name, value in (("min", disparity.min()), ("median", disparity.median()), ("max", disparity.max()))
    }
    record: dict[str, Any] = {"right": pair.right, "rows": rows, "columns": columns, "disparity": numbers}
    if not draw:
        return Drawn(pair.left, record)
    return Drawn(pair.left, record, picture=drawn(values), keep={".pfm": partial(_keep, values=values)})


def _keep(path: Path, values: Any) -> None:
    write_pfm(path, values)


def _beside(lefts: Sequence[str], rights: Sequence[str]) -> list[tuple[str, str]]:
    if not rights:
        raise OptionError("predict: a stereo model needs the right image of each pair. Add --right FILES, or a folder.")
    if len(lefts) != len(rights):
        raise OptionError(
            f"predict: --right must name as many files or folders as there are left ones, {len(lefts)}, got "
            f"{len(rights)}. Name both in the same order."
        )
    return list(zip(lefts, rights, strict=True))


def _paired(left: str, right: str) -> list[_Pair]:
    """The pairs of two files, of two globs in order, or of two folders by equal names."""
    if os.path.isdir(left) != os.path.isdir(right):
        raise OptionError(f"predict: {left} and {right} must be two files or two folders. Name both alike.")
    ones, others = (list(found([name])) for name in (left, right))
    if os.path.isdir(left):
        return _by_name(left, right, [each.image for each in ones], [each.image for each in others])
    if len(ones) != len(others):
        raise OptionError(
            f"predict: {left} stands for {len(ones)} files, {right} for {len(others)}. Use names that match as many."
        )
    return [
        _Pair(one.image, other.image, error=one.error or (other.error and f"{other.image}: {other.error}"))
        for one, other in zip(ones, others, strict=True)
    ]


def _by_name(left: str, right: str, ones: Sequence[str], others: Sequence[str]) -> list[_Pair]:
    """By paths within two folders; what has no partner is told, on either side."""
    names = {os.path.relpath(path, right): path for path in others if not os.path.isdir(path)}
    pairs = []
    for path in ones:
        other = names.pop(os.path.relpath(path, left), None)
        if os.path.isdir(path):
            pairs.append(_Pair(path, error="the folder holds no images"))
        elif other is None:
            pairs.append(_Pair(path, error=f"{right} holds no image of that name"))
        else:
            pairs.append(_Pair(path, other))
    return pairs + [_Pair(path, error=f"{left} holds no image of that name") for path in names.values()]


def _read(pair: _Pair) -> _Pair:
    if pair.error is not None:
        return pair
    images = []
    for name in (pair.left, pair.right):
        try:
            images.append(as_bytes(read_picture(Path(name))))
        except (UnreadableError, DataError) as error:
            said = str(error) if name == pair.left else f"{name}: {error}"
            return _Pair(pair.left, pair.right, error=said)
    left, right = images
    if left.shape != right.shape:
        sizes = [f"{image.shape[1]} x {image.shape[2]}" for image in images]
        return _Pair(pair.left, pair.right, error=f"it has {sizes[0]} pixels and {pair.right} {sizes[1]}, not one size")
    return _Pair(pair.left, pair.right, (left, right))
