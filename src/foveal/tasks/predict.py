"""Answers for files, as they come: any number of them in constant memory, in the order in which they were named.

A file that cannot be read has a line of its own with the reason, and the others go on.
"""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from foveal.analysis.points import marked_points
from foveal.data.picture import SUFFIXES, UnreadableError, read_picture
from foveal.errors import DataError, OptionError
from foveal.tasks.kind import Drawn
from foveal.tasks.looks import attends, attention_maps, noting
from foveal.tasks.trained import BATCH, Trained, check_counts, in_batches

Looking = Literal["none", "marked", "centre"]
Point = tuple[int, int]


@dataclass(frozen=True)
class Prediction:
    """What a model says of one file.

    Attributes:
        image: the file as it was named or found.
        top: the most probable classes with their probabilities, the first first; empty where there is an error.
        error: why the file has no answer.
        picture: ``(channels, size, size)`` in 0 to 1, what the model got; None where there is an error.
        attention: ``(rows, columns)`` weights of a position; None where none was asked for or there is none.
        point: that position, in pixels; None where the weights are of all positions.
        layer: whose weights they are.
    """

    image: str
    top: Sequence[tuple[str, float]] = ()
    error: str | None = None
    picture: Tensor | None = None
    attention: Any = None
    point: Point | None = None
    layer: str = ""

    def record(self) -> dict[str, Any]:
        """Plain values for a line of JSON."""
        if self.error is not None:
            return {"image": self.image, "error": self.error}
        top = [{"class": name, "probability": float(f"{share:.6g}")} for name, share in self.top]
        return {"image": self.image, "top": top}


def predict(
    trained: Trained,
    images: Iterable[str],
    *,
    top: int = 5,
    batch_size: int = BATCH,
    looking: Looking = "none",
) -> Iterator[Prediction]:
    """Predictions for files, folders and globs, batch by batch, in the order of the names.

    Args:
        trained: from ``open_run``.
        images: paths of files; of folders, which stand for every image in them at any depth; or globs.
        top: classes of each image.
        batch_size: files that are read and go through the model at a time.
        looking: whose attention is taken: of the point that stands out most, of the centre, or none.

    Raises:
        OptionError: a number is below 1, or attention is asked of a model that has no attention layer.
        DataError: the model answers with NaN.
    """
    check_counts(top=top, batch_size=batch_size)
    if looking != "none" and not has_attention(trained):
        raise OptionError(
            f"predict: --attention {looking} needs a model with an attention layer, {trained.name} has none. Leave it "
            "out."
        )
    return _answers(trained, images, top, batch_size, looking)


def has_attention(trained: Trained) -> bool:
    """Whether a module of the model weighs positions."""
    return any(attends(module) for module in trained.model.modules())


def _answers(
    trained: Trained, images: Iterable[str], top: int, batch_size: int, looking: Looking
) -> Iterator[Prediction]:
    for batch in in_batches(_read_ahead(trained, found(images), batch_size), batch_size):
        pictures = [read.picture for read in batch if read.picture is not None]
        answers = iter(_predicted(trained, pictures, top, looking) if pictures else ())
        for read in batch:
            yield read if read.error is not None else _joined(read, next(answers))


def _predicted(trained: Trained, pictures: list[Tensor], top: int, looking: Looking) -> list[Prediction]:
    images = torch.stack([trained.preparation.normalised(picture) for picture in pictures])
    if looking == "none":
        probabilities = _finite(trained, trained.probabilities(images))
        return [Prediction("", best) for best in trained.best(probabilities, top)]
    centre = (images.shape[2] // 2, images.shape[3] // 2)
    points = [marked_points(picture)[0] if looking == "marked" else centre for picture in pictures]
    with noting(trained.model) as seen:
        probabilities = _finite(trained, trained.probabilities(images))
    with trained.autocast():
        maps = attention_maps(seen, points, images.shape[2:])
    best = trained.best(probabilities, top)
    return [
        Prediction("", kinds, attention=weights, point=point if maps.of_points else None, layer=maps.where)
        for kinds, weights, point in zip(best, maps.weights, points, strict=True)
    ]


def _joined(read: Prediction, answer: Prediction) -> Prediction:
    return replace(answer, image=read.image, picture=read.picture)


def _finite(trained: Trained, probabilities: Tensor) -> Tensor:
    if not bool(probabilities.isfinite().all()):
        raise DataError(f"predict: {trained.source} answers with NaN, so its weights are no use. Train it again.")
    return probabilities


def found(images: Iterable[str]) -> Iterator[Prediction]:
    """Every file that names stand for, without an answer; a name that stands for none has an error."""
    for name in images:
        if os.path.isdir(name):
            yield from _within(name)
        elif os.path.exists(name):
            yield Prediction(name)
        elif glob.has_magic(name):
            matches = sorted(path for path in glob.glob(name, recursive=True) if not os.path.isdir(path))
            yield from map(Prediction, matches) if matches else (Prediction(name, error="no file has such a name"),)
        else:
            yield Prediction(name, error="there is no such file")


def answered(images: Iterable[str], answer: Callable[[str, Any], Drawn]) -> Iterator[Drawn]:
    """What ``answer`` makes of each file that names stand for; one that cannot be read has its error.

    Args:
        images: as ``predict`` takes them.
        answer: of a file's name and its pixels ``(rows, columns, 3)``, 8 bits, upright.
    """
    for file in found(images):
        if file.error is not None:
            yield Drawn(file.image, error=file.error)
            continue
        try:
            picture = np.asarray(read_picture(Path(file.image)))
        except (UnreadableError, DataError) as error:
            yield Drawn(file.image, error=str(error))
            continue
        yield answer(file.image, picture)


def _within(folder: str) -> Iterator[Prediction]:
    """The images of a folder at any depth, sorted within each folder; hidden ones are left out."""
    none = True
    for place, inner, files in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                none = False
                yield Prediction(os.path.join(place, name))
    if none:
        yield Prediction(folder, error=f"the folder holds no images ({', '.join(sorted(SUFFIXES))})")


def _read_ahead(trained: Trained, files: Iterator[Prediction], ahead: int) -> Iterator[Prediction]:
    """Files with their pictures, read by threads while the model works, never more than ``ahead`` before they go."""

    def read(file: Prediction) -> Prediction:
        if file.error is not None:
            return file
        try:
            return Prediction(file.image, picture=trained.picture(file.image))
        except (UnreadableError, DataError) as error:
            return Prediction(file.image, error=str(error))

    waiting: deque[Future[Prediction]] = deque()
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    try:
        for file in files:
            waiting.append(pool.submit(read, file))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
