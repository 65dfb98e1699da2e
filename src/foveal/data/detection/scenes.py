"""Generated scenes: scikit-learn's handwritten digits pasted on crops of its two sample photographs, masks known.

Training and validation share neither a digit's image nor a pixel of a photograph. A scene follows from its split and
its number alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Side = Literal["train", "val"]

CLASSES = tuple("0123456789")
COUNTS: dict[Side, int] = {"train": 800, "val": 200}
SEED = 427_640
SIZES = ((96, 128), (128, 96), (112, 112), (96, 96))  # rows and columns
EMPTY_EVERY = 40  # every so many scenes one has no digit
CROWD = 7  # the number of the one scene with a crowd
COLUMNS: dict[Side, tuple[int, int]] = {"train": (0, 420), "val": (440, 640)}
"""Which columns of the photographs a split sees."""
LEAST_SEEN = 0.9  # of a digit's pixels, under the digits that were pasted later
INK = 0.5  # of a digit's opacity, from which on a pixel is the digit's
SIDES = (26, 52)  # rows of a digit with the border that its 8 pixels have
CROWD_SIDES = (14, 20)
CROWD_ROWS, CROWD_COLUMNS = 36, 64  # of the part of the picture in which a crowd stands
TRIES = 20

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    Attributes:
        image: ``(rows, columns, 3)``, 8 bits.
        masks: ``(objects, rows, columns)`` bool: the pixels of each that are seen; they do not overlap.
        labels: ``(objects,)`` int64, places in ``CLASSES``.
        crowd: ``(objects,)`` bool: whether the mask is of several digits of a class that nobody told apart.
    """

    image: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]


def scene(index: int, split: Side) -> Scene:
    """The scene of a number, 0 to ``COUNTS[split] - 1``; any larger number has one too."""
    chance = np.random.default_rng((SEED, split == "val", index))
    image = _background(chance, split)
    canvas = _Canvas(image)
    glyphs, labels = _digits(split)
    if index == CROWD:
        _crowd(canvas, glyphs, labels, chance)
    for _ in range(0 if index % EMPTY_EVERY == EMPTY_EVERY - 1 else int(chance.integers(2, 6))):
        which = int(chance.integers(len(labels)))
        canvas.paste(glyphs[which], int(labels[which]), chance, SIDES)
    return canvas.finished()


class _Canvas:
    """A picture that digits are pasted on, and what is seen of each so far."""

    def __init__(self, image: Floats) -> None:
        self.image = image
        self.masks: list[npt.NDArray[np.bool_]] = []
        self.areas: list[int] = []
        self.labels: list[int] = []
        self.crowd: list[bool] = []

    def paste(
        self,
        glyph: Floats,
        label: int,
        chance: np.random.Generator,
        sides: tuple[int, int],
        within: tuple[int, int] | None = None,
    ) -> None:
        """Put a digit where enough is seen of all that is there, in the first rows and columns alone if asked to;
        nowhere if there is no such place."""
        opacity = _scaled(glyph, int(chance.integers(*sides)), chance.uniform(0.85, 1.15))
        rows, columns = opacity.shape
        height, width = within or self.image.shape[:2]
        for _ in range(TRIES):
            top, left = int(chance.integers(height - rows + 1)), int(chance.integers(width - columns + 1))
            place = (slice(top, top + rows), slice(left, left + columns))
            if self._leaves_enough(place, opacity > INK):
                self._paint(place, opacity, label, chance)
                return

    def _leaves_enough(self, place: tuple[slice, slice], ink: npt.NDArray[np.bool_]) -> bool:
        kept = [int(mask.sum() - (mask[place] & ink).sum()) for mask in self.masks]
        return all(
            now >= LEAST_SEEN * area and (now == area or not crowd)
            for now, area, crowd in zip(kept, self.areas, self.crowd, strict=True)
        )

    def _paint(self, place: tuple[slice, slice], opacity: Floats, label: int, chance: np.random.Generator) -> None:
        behind = self.image[place]
        shade = opacity[..., None]
        self.image[place] = behind * (1 - shade) + _colour(behind, chance) * shade
        mask = np.zeros(self.image.shape[:2], bool)
        mask[place] = opacity > INK
        for other in self.masks:
            other &= ~mask
        self.masks.append(mask)
        self.areas.append(int(mask.sum()))
        self.labels.append(label)
        self.crowd.append(False)

    def gather(self) -> None:
        """Make one crowd of all that is there."""
        self.masks, self.crowd = [np.any(self.masks, 0)], [True]
        self.areas, self.labels = [int(self.masks[0].sum())], self.labels[:1]

    def finished(self) -> Scene:
        """The scene as it is now."""
        masks = np.array(self.masks, bool).reshape(-1, *self.image.shape[:2])
        image = self.image.round().clip(0, 255).astype(np.uint8)
        return Scene(image, masks, np.array(self.labels, np.int64), np.array(self.crowd, bool))


def _crowd(canvas: _Canvas, glyphs: Floats, labels: npt.NDArray[np.int64], chance: np.random.Generator) -> None:
    """Small digits of one class, close together."""
    label = int(chance.integers(len(CLASSES)))
    for glyph in glyphs[labels == label][:12]:
        canvas.paste(glyph, label, chance, CROWD_SIDES, within=(CROWD_ROWS, CROWD_COLUMNS))
    canvas.gather()


def _background(chance: np.random.Generator, split: Side) -> Floats:
    """A window of one of the photographs' columns of a split, mirrored or not, a little darker or paler."""
    photographs = _photographs()
    rows, columns = SIZES[int(chance.integers(len(SIZES)))]
    source = photographs[int(chance.integers(len(photographs)))]
    first, end = COLUMNS[split]
    top = int(chance.integers(source.shape[0] - rows + 1))
    left = int(chance.integers(first, end - columns + 1))
    window = source[top : top + rows, left : left + columns].astype(np.float64)
    window = window[:, ::-1] if chance.random() < 0.5 else window
    return np.clip(128 + (window - 128) * chance.uniform(0.5, 0.9) + chance.uniform(-30, 30), 0, 255)


def _scaled(glyph: Floats, side: int, ratio: float) -> Floats:
    """Opacity of a digit at ``side`` rows, without the empty border."""
    from PIL import Image

    size = (max(8, round(side * ratio * 0.9)), side)
    smooth = np.asarray(Image.fromarray(np.pad(glyph, 1).astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
    opacity = np.clip((smooth.astype(np.float64) - 0.25) / 0.3, 0, 1)
    inked = opacity > INK
    rows, columns = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
    return opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _colour(behind: Floats, chance: np.random.Generator) -> Floats:
    """A colour that stands out from what is behind: dark on what is light, light on what is dark."""
    light = behind.mean() < 128
    return chance.uniform(190, 255, 3) if light else chance.uniform(0, 65, 3)


@cache
def _digits(split: Side) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Digits ``(n, 8, 8)`` from 0 to 1 and their classes."""
    from foveal.data.digits import sources

    images, labels, held_out = sources()
    chosen = held_out if split == "val" else ~held_out
    return images[chosen, 0].double().numpy(), labels[chosen].numpy()


@cache
def _photographs() -> tuple[Any, ...]:
    from sklearn.datasets import load_sample_images

    return tuple(load_sample_images().images)
