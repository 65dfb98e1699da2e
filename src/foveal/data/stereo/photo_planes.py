"""photo-planes: stereo pairs of textured planes at known disparities, made from scikit-learn's two photographs.

A scene is a background and a few discs and rectangles before it, upright or slanted: each has a disparity that is an
affine function of the place in the left image, and a texture cut from a photograph. Per point the plane that is nearest
(has the largest disparity) is seen, in the left image and in the right one each, so what one image hides the other may
show. A pixel is the mean of 2 x 2 points. Training and validation take their textures from different parts of the
photographs. On disk it is Scene Flow's layout: TRAIN and TEST, PNG and PFM, without disparities of right images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from foveal.data.stereo.pfm import write_pfm

VERSION = 1
ROWS, COLUMNS = 68, 132
LEAST, MOST = 1.0, 14.0  # pixels of disparity
FAR, NEAR = 5.0, 3.0  # the most of a background, the least of what stands before it
COUNTS = {"TRAIN": 160, "TEST": 32}
FRAMES = 8  # a folder has this many
# Columns of the photographs, 640 wide, that textures come from: 20 between lie in neither.
PARTS = {"TRAIN": (0, 420), "TEST": (440, 640)}
FINE = 2  # points of a pixel along an axis
WINDOWS = 6  # of which a plane gets the one with most contrast: a bare sky cannot be matched

Array = npt.NDArray[Any]
Affine = tuple[float, float, float]


@dataclass(frozen=True)
class Plane:
    """Where a plane is seen in the left image, how far it is, and where its texture lies in a photograph.

    Attributes:
        disparity: a, b, c of a + b x + c y pixels.
        middle: x and y of the shape's middle.
        reach: half its length along its own two axes; infinite for the background.
        turn: radians of those axes.
        round: a disc, or else a rectangle.
        photograph: of which photograph the texture is.
        u: a, b, c of the photograph's column.
        v: of its row.
        gain: of red, green and blue.
    """

    disparity: Affine
    middle: tuple[float, float]
    reach: tuple[float, float]
    turn: float
    round: bool
    photograph: int
    u: Affine
    v: Affine
    gain: tuple[float, ...]

    def covers(self, x: Array, y: Array) -> Array:
        """Which points of the left image it lies before."""
        dx, dy = x - self.middle[0], y - self.middle[1]
        along = (dx * math.cos(self.turn) + dy * math.sin(self.turn)) / self.reach[0]
        across = (dy * math.cos(self.turn) - dx * math.sin(self.turn)) / self.reach[1]
        inside: Array = along**2 + across**2 <= 1 if self.round else np.maximum(abs(along), abs(across)) <= 1
        return inside

    def left_column(self, x: Array, y: Array) -> Array:
        """The column in the left image of what the plane shows at a point of the right one: x = x' + d(x, y)."""
        a, b, c = self.disparity
        column: Array = (x + a + c * y) / (1 - b)
        return column


@dataclass(frozen=True)
class View:
    """What one camera sees: ``image`` ``(rows, columns, 3)`` bytes, ``disparity`` ``(rows, columns)`` float32."""

    image: Array
    disparity: Array


def write(folder: Path) -> None:
    """The whole set: 160 pairs of 68 x 132 pixels to train on, 32 held out."""
    from PIL import Image

    photographs = _photographs()
    for number, (part, count) in enumerate(COUNTS.items()):
        textures = [photograph[:, slice(*PARTS[part])] for photograph in photographs]
        for index in range(count):
            planes = scene(textures, seed=(number, index))
            where = f"{part}/A/{index // FRAMES:04d}"
            name, views = f"{index % FRAMES:04d}", [render(planes, textures, right=right) for right in (False, True)]
            for side, view in zip(("left", "right"), views, strict=True):
                frames = folder / "frames_cleanpass" / where / side
                frames.mkdir(parents=True, exist_ok=True)
                Image.fromarray(view.image).save(frames / f"{name}.png")
            maps = folder / "disparity" / where / "left"
            maps.mkdir(parents=True, exist_ok=True)
            write_pfm(maps / f"{name}.pfm", views[0].disparity)


def scene(textures: list[Array], seed: tuple[int, int]) -> list[Plane]:
    """A background and three to six planes before it."""
    random = np.random.default_rng(seed)
    far = _plane(random, textures, (LEAST, FAR), whole=True)
    return [far, *(_plane(random, textures, (NEAR, MOST), whole=False) for _ in range(int(random.integers(3, 7))))]


def render(planes: list[Plane], textures: list[Array], *, right: bool) -> View:
    """The scene from the left or the right."""
    y, x = (axis.astype(np.float64) for axis in np.mgrid[:ROWS, :COLUMNS])
    disparity = _nearest(planes, x, y, right=right)[0]
    total = np.zeros((ROWS, COLUMNS, 3))
    offsets = (np.arange(FINE) + 0.5) / FINE - 0.5
    for dy in offsets:
        for dx in offsets:
            total += _colours(planes, textures, x + dx, y + dy, right=right)
    image = np.clip(np.round(total / FINE**2), 0, 255).astype(np.uint8)
    return View(image, disparity.astype(np.float32))


def _nearest(planes: list[Plane], x: Array, y: Array, *, right: bool) -> tuple[Array, Array, Array]:
    """For each point the disparity of the plane that is seen there, its number, and its column in the left image."""
    best, number, column = np.full(x.shape, -np.inf), np.zeros(x.shape, np.int64), np.zeros(x.shape)
    for n, plane in enumerate(planes):
        at = plane.left_column(x, y) if right else x
        disparity = _at(plane.disparity, at, y)
        seen = plane.covers(at, y) & (disparity > best)
        best[seen], number[seen], column[seen] = disparity[seen], n, at[seen]
    return best, number, column


def _colours(planes: list[Plane], textures: list[Array], x: Array, y: Array, *, right: bool) -> Array:
    """The texture of whichever plane is seen at each point, between the photograph's pixels by linear interpolation."""
    _, number, column = _nearest(planes, x, y, right=right)
    out = np.empty((*x.shape, 3))
    for n, plane in enumerate(planes):
        seen = number == n
        at, row = column[seen], y[seen]
        texture = textures[plane.photograph]
        out[seen] = _between(texture, _at(plane.v, at, row), _at(plane.u, at, row)) * plane.gain
    return out


def _between(texture: Array, v: Array, u: Array) -> Array:
    """Values at rows v and columns u, mirrored at the borders."""
    rows, columns = texture.shape[:2]
    v, u = _mirrored(v, rows), _mirrored(u, columns)
    top, left = np.minimum(v.astype(int), rows - 2), np.minimum(u.astype(int), columns - 2)
    down, over = (v - top)[:, None], (u - left)[:, None]
    above = texture[top, left] * (1 - over) + texture[top, left + 1] * over
    below = texture[top + 1, left] * (1 - over) + texture[top + 1, left + 1] * over
    mixed: Array = above * (1 - down) + below * down
    return mixed


def _at(affine: Affine, x: Array, y: Array) -> Array:
    value: Array = affine[0] + affine[1] * x + affine[2] * y
    return value


def _mirrored(at: Array, length: int) -> Array:
    folded: Array = (length - 1) - abs(at % (2 * (length - 1)) - (length - 1))
    return folded


def _plane(random: np.random.Generator, textures: list[Array], range_: tuple[float, float], *, whole: bool) -> Plane:
    middle = (float(random.uniform(0, COLUMNS)), float(random.uniform(0, ROWS)))
    reach = (math.inf, math.inf) if whole else (float(random.uniform(10, 28)), float(random.uniform(8, 21)))
    photograph, u, v = _window(random, textures)
    return Plane(
        disparity=_slant(random, middle, reach, range_),
        middle=middle,
        reach=reach,
        turn=float(random.uniform(0, math.pi)),
        round=bool(random.random() < 0.5),
        photograph=photograph,
        u=u,
        v=v,
        gain=tuple(float(g) for g in random.uniform(0.75, 1.0) * random.uniform(0.85, 1.0, 3)),
    )


def _slant(
    random: np.random.Generator, middle: tuple[float, float], reach: tuple[float, float], range_: tuple[float, float]
) -> Affine:
    """Disparities of a plane, within the range wherever it is seen; every third one is upright."""
    low, high = range_
    whole = math.isinf(reach[0])
    x, y = (COLUMNS / 2, ROWS / 2) if whole else middle
    at = float(random.uniform(low, high))
    b, c = (float(random.uniform(-most, most)) for most in (0.05, 0.1))
    if random.random() < 1 / 3:
        return at, 0.0, 0.0
    # How far the disparity is from that of the middle, at most.
    off = abs(b) * COLUMNS / 2 + abs(c) * ROWS / 2 if whole else math.hypot(b, c) * math.hypot(*reach)
    share = min(1.0, (high - low) / 2 / off)
    at = min(max(at, low + share * off), high - share * off)
    return at - share * (b * x + c * y), share * b, share * c


def _window(random: np.random.Generator, textures: list[Array]) -> tuple[int, Affine, Affine]:
    """Where a texture lies: the one of a few places whose neighbouring columns differ most."""
    best: tuple[float, int, Affine, Affine] | None = None
    for _ in range(WINDOWS):
        photograph = int(random.integers(len(textures)))
        rows, columns = textures[photograph].shape[:2]
        scale, turn = float(random.uniform(0.7, 1.2)), float(random.uniform(-0.5, 0.5))
        left, top = float(random.uniform(0, columns)), float(random.uniform(0, rows))
        u = (left, scale * math.cos(turn), -scale * math.sin(turn))
        v = (top, scale * math.sin(turn), scale * math.cos(turn))
        y, x = (axis.ravel().astype(float) for axis in np.mgrid[:ROWS:4, :COLUMNS:4])
        step = [_between(textures[photograph], _at(v, x + d, y), _at(u, x + d, y)) for d in (0, 1)]
        contrast = float(abs(step[1] - step[0]).mean())
        if best is None or contrast > best[0]:
            best = (contrast, photograph, u, v)
    assert best is not None
    return best[1:]


def _photographs() -> list[Array]:
    from sklearn.datasets import load_sample_images

    loaded = load_sample_images()
    named = dict(zip((Path(name).name for name in loaded.filenames), loaded.images, strict=True))
    return [named[name] for name in sorted(named)]
