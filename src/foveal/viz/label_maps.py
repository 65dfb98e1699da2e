"""Maps of classes over the picture that they are of, with a legend of the classes that are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from foveal.viz.lettering import lettered

RGB = tuple[int, int, int]
Bytes = npt.NDArray[np.uint8]
UNCOUNTED: RGB = (224, 224, 192)  # VOC's colour of 255
LEAST, MOST = 320, 2048  # pixels of the longer side
STRENGTH = 0.6  # share of the class's colour in the mixture
MOST_NAMED = 40
_GAP, _WIDTH = 8, 240  # between pictures, and the least of the legend
_SIZE, _SHARE = 15, 50  # letters: their least height, and how many of them a picture is wide at most
_INK, _SOFT, _PAPER = (22, 25, 29), (91, 100, 112), (255, 255, 255)


def shares(labels: Bytes, names: Sequence[str]) -> dict[str, float]:
    """Share of the pixels of each class that is there, the largest first; other numbers are of no class."""
    counts = np.bincount(labels.ravel(), minlength=len(names))[: len(names)]
    ranked = sorted(np.flatnonzero(counts).tolist(), key=lambda number: (-counts[number], number))
    return {names[number]: float(counts[number] / labels.size) for number in ranked}


def drawn(image: Bytes, labels: Bytes, names: Sequence[str], colours: Sequence[RGB], *, most: int = MOST) -> Bytes:
    """A picture with its classes in colour, their borders, and a legend below.

    Args:
        image: ``(rows, columns, 3)``.
        labels: ``(rows, columns)``, numbers of classes; others are shown in one colour and not named.
        names: of the classes.
        colours: of the classes; the picture shows as it is where that is black, as VOC's background is.
        most: pixels of the longer side.

    Returns:
        ``(rows, columns, 3)``; small pictures are enlarged to about ``LEAST`` pixels, large ones shrunk to ``most``.
    """
    image, labels = _fitted(image, labels, most)
    every = np.array([*colours, *[UNCOUNTED] * (256 - len(colours))], np.float32)
    table = every[labels]
    seen = STRENGTH * (table.sum(-1, keepdims=True) > 0)
    mixed = (1 - seen) * _greyed(image, seen) + seen * table
    mixed[_borders(labels)] = 255
    return _over_legend(mixed.round().astype(np.uint8), labels, names, colours)


def stacked(rows: Sequence[Sequence[Bytes]]) -> Bytes:
    """Pictures of any sizes beside and below each other, on white."""
    lines = [np.concatenate(_even(line, 0), axis=1) for line in rows]
    whole: Bytes = np.concatenate(_even(lines, 1), axis=0)
    return whole


def _even(pictures: Sequence[Bytes], axis: int) -> list[Bytes]:
    """Padded along an axis to the longest, and by a gap along the other."""
    most = max(picture.shape[axis] for picture in pictures)
    padded = []
    for picture in pictures:
        more = [(0, _GAP), (0, _GAP), (0, 0)]
        more[axis] = (0, most - picture.shape[axis])
        padded.append(np.pad(picture, more, constant_values=255))
    return padded


def _greyed(image: Bytes, seen: Any) -> npt.NDArray[np.float32]:
    """Grey under a colour, so that the picture's own do not look like classes."""
    pixels = image.astype(np.float32)
    grey = (pixels @ np.array([0.2126, 0.7152, 0.0722], np.float32))[..., None]
    mixed: npt.NDArray[np.float32] = np.where(seen > 0, grey, pixels)
    return mixed


def _borders(labels: Bytes) -> npt.NDArray[np.bool_]:
    """Where a class ends to the right or below."""
    borders = np.zeros(labels.shape, bool)
    borders[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    borders[:-1] |= labels[:-1] != labels[1:]
    return borders


def _fitted(image: Bytes, labels: Bytes, most: int) -> tuple[Bytes, Bytes]:
    from PIL import Image

    longer = max(labels.shape)
    if LEAST <= longer <= most:
        return image, labels
    factor = -(-LEAST // longer) if longer < LEAST else most / longer
    size = (max(1, round(labels.shape[1] * factor)), max(1, round(labels.shape[0] * factor)))
    picture = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(picture), np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))


def _over_legend(picture: Bytes, labels: Bytes, names: Sequence[str], colours: Sequence[RGB]) -> Bytes:
    from PIL import Image, ImageDraw

    width = max(picture.shape[1], _WIDTH)
    size = max(_SIZE, round(width / _SHARE))
    gap = round(size * _GAP / _SIZE)
    entries = _entries(labels, names, colours)
    words = [lettered(text, size) for text, _ in entries]
    placed, height = _placed([font.getlength(text) for text, font in words], width, size, gap)
    canvas = Image.new("RGB", (width, picture.shape[0] + height), _PAPER)
    canvas.paste(Image.fromarray(picture), ((width - picture.shape[1]) // 2, 0))
    draw = ImageDraw.Draw(canvas)
    for (_, colour), (text, font), (left, top) in zip(entries, words, placed, strict=True):
        top += picture.shape[0]
        if colour is not None:
            draw.rectangle((left, top, left + size, top + size), fill=colour, outline=_SOFT)
            left += size + gap
        draw.text((left, top + size / 2), text, fill=_INK, font=font, anchor="lm")
    return np.asarray(canvas)


def _entries(labels: Bytes, names: Sequence[str], colours: Sequence[RGB]) -> list[tuple[str, RGB | None]]:
    """Words and colour of each class that is there; words alone for how many more there are."""
    there = shares(labels, names)
    told: list[tuple[str, RGB | None]] = []
    for name, share in list(there.items())[:MOST_NAMED]:
        shown = f"{100 * share:.1f} %" if share >= 0.0005 else "< 0.1 %"
        told.append((f"{name}: {shown}", colours[list(names).index(name)]))
    return told if len(there) <= MOST_NAMED else [*told, (f"and {len(there) - MOST_NAMED} more", None)]


def _placed(lengths: Sequence[float], width: int, size: int, gap: int) -> tuple[list[tuple[int, int]], int]:
    """Left upper corner of each, row after row, and the height of all."""
    places, left, top = [], gap, gap
    for length in lengths:
        wide = round(length) + size + gap
        if left > gap and left + wide + gap > width:
            left, top = gap, top + size + gap
        places.append((left, top))
        left += wide + 2 * gap
    return places, top + size + gap
