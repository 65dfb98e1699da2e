"""Samples of a trained generator, one after the other, and a picture of a row for each class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from foveal.errors import DataError, OptionError
from foveal.tasks.generation.draws import sample_draw
from foveal.tasks.kind import Asked, Drawn, Opened
from foveal.viz.samples import sample_rows

COUNT = 10  # of each class, where nobody says how many
ROWS, COLUMNS = 20, 10  # of the picture of all classes
Bytes = npt.NDArray[np.uint8]


def answers(opened: Opened, images: Iterable[str], asked: Asked) -> Iterator[Drawn]:
    """Sample n of a seed is of class n modulo the number of classes, and the same however many are asked for.

    Raises:
        OptionError: files are named, or fewer than one sample is asked for.
        DataError: the generator makes NaN.
    """
    if named := list(images)[:1]:
        raise OptionError(
            f"predict: {opened.source} is a run of generation, which takes no files, got {named[0]}. Use --count and "
            "--draw."
        )
    classes = [str(name) for name in opened.told["classes"]]
    count = COUNT * len(classes) if asked.count is None else asked.count
    if count < 1 or asked.seed < 0:
        raise OptionError(
            f"predict: --count must be at least 1 and --seed at least 0, got {count} and {asked.seed}. Use 100 and 0."
        )
    return _drawn(opened, classes, count, asked)


def _drawn(opened: Opened, classes: list[str], count: int, asked: Asked) -> Iterator[Drawn]:
    kept: dict[tuple[int, int], Bytes] = {}
    digits = max(4, len(str(count - 1)))
    for first in range(0, count, asked.batch_size):
        numbers = range(first, min(first + asked.batch_size, count))
        for number, image in zip(numbers, _bytes(opened, _made(opened, numbers, asked.seed)), strict=True):
            column, row = divmod(number, len(classes))
            if row < ROWS and column < COLUMNS:
                kept[row, column] = image
            record = {"class": classes[row], "number": number, "seed": asked.seed}
            colour = image if image.shape[-1] == 3 else image.repeat(3, -1)
            name = f"sample-{number:0{digits}d}-{_plain(classes[row])}"
            yield Drawn(name, record, picture=colour if asked.draw else None)
    if asked.draw:
        rows = 1 + max(row for row, _ in kept)
        record = {"classes": classes[:rows], "seed": asked.seed}
        yield Drawn("samples", record, picture=sample_rows(_grid(kept), classes[:rows]))


def _plain(name: str) -> str:
    """A class in the name of a file."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _grid(kept: dict[tuple[int, int], Bytes]) -> Bytes:
    """``(rows, columns, size, size, channels)``, white where there is no sample."""
    rows, columns = (1 + max(place[axis] for place in kept) for axis in (0, 1))
    grid = np.full((rows, columns, *next(iter(kept.values())).shape), 255, np.uint8)
    for place, image in kept.items():
        grid[place] = image
    return grid


@torch.no_grad()
def _made(opened: Opened, numbers: range, seed: int) -> Tensor:
    generator: Any = opened.models["generator"]
    drawn = sample_draw(seed, numbers, int(generator.latent), int(generator.num_classes))
    codes, kinds = (part.to(opened.device) for part in drawn)
    with opened.autocast():
        made: Tensor = generator(codes, kinds)
    return made.float()


def _bytes(opened: Opened, made: Tensor) -> Bytes:
    """``(n, size, size, channels)`` of images within -1 and 1."""
    if not bool(made.isfinite().all()):
        raise DataError(f"predict: {opened.source} makes NaN, so its weights are no use. Train it again.")
    return as_bytes(made)


def as_bytes(made: Tensor) -> Bytes:
    """Images ``(n, channels, size, size)`` within -1 and 1 as ``(n, size, size, channels)``, 8 bits."""
    told: Bytes = ((made.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    return told
