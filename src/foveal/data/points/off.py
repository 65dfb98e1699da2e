"""Surfaces in OFF files, as ModelNet is published before its points were drawn: points drawn from them anew.

Format: Geomview's OFF. ModelNet40 has files whose counts stand right behind the word OFF; colours and normals beside
the coordinates are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from foveal.data.picture import UnreadableError


def read_off(path: Path, count: int, seed: int) -> Any:
    """Points drawn uniformly from the surface, and the normals of their faces: ``(count, 6)``.

    Raises:
        UnreadableError: it is no whole OFF file in text form, or its faces have no area.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = (line for line in (each.partition("#")[0].strip() for each in file) if line)
        begun = re.fullmatch(r"(?:ST)?C?N?OFF\b\s*(.*)", re.sub(r"OFF(?=\d)", "OFF ", next(lines, "")))
        if begun is None:
            raise UnreadableError("it does not begin with a line OFF")
        told = re.fullmatch(r"(\d{1,15})\s+(\d{1,15})(?:\s+\d+)?", begun[1] or next(lines, ""))
        if told is None:
            raise UnreadableError("its counts of vertices and faces are no numbers")
        vertices = np.array(list(_rows(lines, int(told[1]), "vertices", _place))).reshape(-1, 3)
        faces = list(_rows(lines, int(told[2]), "faces", _corners))
    # Of a face with more corners, the triangles around its first one.
    corners = [(face[0], *pair) for face in faces for pair in pairwise(face[1:])]
    index = np.array(corners, np.int64).reshape(-1, 3)
    if index.size and not 0 <= index.min() <= index.max() < len(vertices):
        raise UnreadableError(f"a face names vertices {index.min()} to {index.max()} of {len(vertices)}")
    return surface_points(vertices[index], count, seed)


def surface_points(triangles: Any, count: int, seed: int) -> Any:
    """``(count, 6)``: points uniform by area on triangles ``(t, 3, 3)``, and the normals of these.

    Raises:
        UnreadableError: no triangle has an area.
    """
    first = triangles[:, 0]
    with np.errstate(all="ignore"):
        one, two = triangles[:, 1] - first, triangles[:, 2] - first
        normals = np.cross(one, two)
        areas = np.linalg.norm(normals, axis=1)
    if not (np.isfinite(areas).all() and areas.sum() > 0):
        raise UnreadableError("its faces have no area to draw points from")
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(areas), count, p=areas / areas.sum())
    across = rng.random((count, 2, 1))
    # Of the parallelogram, its farther half turned back onto the triangle.
    across = np.where(across.sum(1, keepdims=True) > 1, 1 - across, across)
    points = first[chosen] + across[:, 0] * one[chosen] + across[:, 1] * two[chosen]
    return np.concatenate((points, normals[chosen] / areas[chosen, None]), 1)


def _rows(lines: Iterator[str], count: int, what: str, read: Callable[[list[str]], list[Any]]) -> Iterator[list[Any]]:
    for row in range(count):
        line = next(lines, None)
        if line is None:
            raise UnreadableError(f"its header tells of {count} {what}, the file ends after {row}")
        try:
            yield read(line.split())
        except (ValueError, IndexError) as error:
            raise UnreadableError(f"of its {what} the one after {row} others is {line[:40]!r}") from error


def _place(words: list[str]) -> list[float]:
    return [float(words[n]) for n in range(3)]


def _corners(words: list[str]) -> list[int]:
    return [int(words[n]) for n in range(1, 1 + int(words[0]))]
