"""Clouds of five solids, made here, in the HDF5 layouts of ModelNet40 (a class each) and ShapeNet-part (with parts).

Points are drawn uniformly on the surface, moved by noise and turned to any side. A part is what shows whichever way a
solid lies: no side of a cube is the upper one, but its edges are not its faces. The sphere of the parts is cut by a
plane, since nothing of a whole one differs from the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

VERSION = 1
SEED = 2021
POINTS = 512
SIDES = {"train": 250, "test": 60}
"""Clouds of each solid."""
NOISE = 0.01
"""Deviation of each coordinate, of a solid whose farthest point is at distance 1."""
EDGE = 0.25
"""Of half a cube's side: what is nearer to an edge belongs to it."""
Array = np.ndarray[Any, Any]
Made = tuple[Array, Array]
"""Points ``(n, 3)`` and the part of each, ``(n,)``, counted within the solid."""
Rng = np.random.Generator


def cube(rng: Rng, n: int, cut: bool) -> Made:
    """Edges of up to 1 to 1.4; what is near an edge is part 1, the rest of the faces part 0."""
    half = rng.uniform(1, 1.4, 3)
    faces = np.array([half[1] * half[2], half[0] * half[2], half[0] * half[1]])
    axis = rng.choice(3, n, p=faces / faces.sum())
    xyz = rng.uniform(-1, 1, (n, 3))
    every = np.arange(n)
    xyz[every, axis] = np.where(rng.random(n) < 0.5, -1, 1)
    # How far from the nearest edge of its face, in the units of the shortest side.
    away = (1 - np.abs(xyz)) * half
    away[every, axis] = np.inf
    return xyz * half, (away.min(1) < EDGE * half.min()).astype(np.uint8)


def sphere(rng: Rng, n: int, cut: bool) -> Made:
    """Whole, or cut by a plane: the dome is part 0, the cut part 1."""
    height = rng.uniform(-0.2, 0.4) if cut else 1.0
    disc, dome = (1 - height**2) / 2, 1 + height  # areas over 2 pi
    flat = rng.random(n) < disc / (disc + dome)
    z = np.where(flat, height, rng.uniform(-1, height, n))
    radius = np.where(flat, np.sqrt((1 - height**2) * rng.random(n)), np.sqrt(np.maximum(1 - z**2, 0)))
    return _around(rng, radius, z), flat.astype(np.uint8)


def torus(rng: Rng, n: int, cut: bool) -> Made:
    """The outer half of the tube is part 0, the inner part 1."""
    tube, found = rng.uniform(0.25, 0.45), np.empty(0)
    while len(found) < n:  # area grows with the distance from the axis
        angle = rng.uniform(-np.pi, np.pi, 2 * n)
        found = np.concatenate((found, angle[rng.random(2 * n) * (1 + tube) < 1 + tube * np.cos(angle)]))
    angle = found[:n]
    return _around(rng, 1 + tube * np.cos(angle), tube * np.sin(angle)), (np.cos(angle) < 0).astype(np.uint8)


def cone(rng: Rng, n: int, cut: bool) -> Made:
    """The side is part 0, the base part 1."""
    height = rng.uniform(1.4, 2.6)
    flat = rng.random(n) < 1 / (1 + np.hypot(1, height))
    radius = np.sqrt(rng.random(n))
    z = np.where(flat, 0.0, height * (1 - radius))
    return _around(rng, radius, z - height / 3), flat.astype(np.uint8)


def cylinder(rng: Rng, n: int, cut: bool) -> Made:
    """The side is part 0, both caps part 1."""
    height = rng.uniform(1.4, 3.0)
    flat = rng.random(n) < 1 / (1 + height)
    radius = np.where(flat, np.sqrt(rng.random(n)), 1.0)
    z = np.where(flat, np.where(rng.random(n) < 0.5, 0, height), height * rng.random(n))
    return _around(rng, radius, z - height / 2), flat.astype(np.uint8)


SOLIDS: dict[str, Callable[[Rng, int, bool], Made]] = {
    "cone": cone, "cube": cube, "cylinder": cylinder, "sphere": sphere, "torus": torus,
}  # fmt: skip
PARTS = {
    "cone": ("side", "base"), "cube": ("faces", "edges"), "cylinder": ("side", "caps"), "sphere": ("dome", "cut"),
    "torus": ("outside", "inside"),
}  # fmt: skip


def _around(rng: Rng, radius: Array, z: Array) -> Array:
    angle = rng.uniform(0, 2 * np.pi, len(z))
    return np.stack((radius * np.cos(angle), radius * np.sin(angle), z), 1)


def _turn(rng: Rng) -> Array:
    """A turn to any side, all equally likely: that of a quaternion of four normal numbers."""
    four = rng.normal(size=4)
    w, x, y, z = four / np.sqrt((four**2).sum())
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def solid(name: str, seed: tuple[int, ...], points: int = POINTS, *, cut: bool = False) -> Made:
    """One solid: ``(points, 3)`` float32 and the part of each, turned, with noise, two thirds of the unit sphere or
    more."""
    rng = np.random.default_rng(seed)
    xyz, parts = SOLIDS[name](rng, points, cut)
    xyz = xyz / np.linalg.norm(xyz, axis=1).max() + rng.normal(0, NOISE, xyz.shape)
    # Without a matrix product, whose last bits depend on the machine.
    xyz = (xyz[:, None, :] * _turn(rng)).sum(2) * rng.uniform(2 / 3, 1)
    order = rng.permutation(points)
    return xyz[order].astype(np.float32), parts[order]


def _side(side: str, *, cut: bool) -> tuple[Array, Array, Array]:
    """All clouds of a side in an order of its own: points, labels, parts counted over all solids."""
    first = dict(zip(SOLIDS, np.cumsum([0, *(len(PARTS[name]) for name in SOLIDS)]), strict=False))
    rows = [(label, n) for label in range(len(SOLIDS)) for n in range(SIDES[side])]
    order = np.random.default_rng((SEED, len(rows))).permutation(len(rows))
    points, labels, parts = [], [], []
    for label, n in (rows[k] for k in order):
        name = list(SOLIDS)[label]
        xyz, own = solid(name, (SEED, list(SIDES).index(side), label, n, int(cut)), cut=cut)
        points.append(xyz)
        labels.append([label])
        parts.append(own + first[name])
    return np.stack(points), np.array(labels, np.uint8), np.stack(parts).astype(np.uint8)


def write_solids(folder: Path) -> None:
    """``solids``: the files of modelnet40_ply_hdf5_2048."""
    _lines(folder / "shape_names.txt", SOLIDS)
    for side in SIDES:
        points, labels, _ = _side(side, cut=False)
        name = f"ply_data_{side}0.h5"
        _lines(folder / f"{side}_files.txt", [f"data/modelnet40_ply_hdf5_2048/{name}"])
        _hdf5(folder / name, data=points, label=labels)


def write_solid_parts(folder: Path) -> None:
    """``solid-parts``: the files of hdf5_data, with a list of the parts' names beside."""
    synsets = {name: f"{90_000_000 + n:08d}" for n, name in enumerate(SOLIDS)}
    _lines(folder / "all_object_categories.txt", [f"{name}\t{synset}" for name, synset in synsets.items()])
    table = [[synsets[name], n] for name in SOLIDS for n in range(len(PARTS[name]))]
    (folder / "overallid_to_catid_partid.json").write_text(json.dumps(table), encoding="utf-8")
    numbers = {f"{synset}_{n}": number for number, (synset, n) in enumerate(table)}
    (folder / "catid_partid_to_overallid.json").write_text(json.dumps(numbers), encoding="utf-8")
    _lines(folder / "part_names.txt", [f"{name} {part}" for name in SOLIDS for part in PARTS[name]])
    for side in ("train", "val", "test"):
        # Every fifth of the clouds to train on is held out as val, for who keeps test for the end.
        points, labels, parts = _side("test" if side == "test" else "train", cut=True)
        fifth = np.arange(len(points)) % 5 == 4
        kept = np.ones_like(fifth) if side == "test" else (fifth if side == "val" else ~fifth)
        name = f"ply_data_{side}0.h5"
        _lines(folder / f"{side}_hdf5_file_list.txt", [name])
        _hdf5(folder / name, data=points[kept], label=labels[kept], pid=parts[kept])


def _lines(path: Path, lines: Any) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _hdf5(path: Path, **datasets: Array) -> None:
    import h5py

    with h5py.File(path, "w", libver="earliest") as file:
        for name, values in datasets.items():
            # Without times, so that the same clouds give the same bytes.
            file.create_dataset(name, data=values, compression="gzip", compression_opts=1, track_times=False)
