"""Clouds with a class each, in the two layouts in which ModelNet40 (Wu et al., 2015) is published as points.

HDF5, by the authors of PointNet: 2048 points, in the unit sphere. Text, by those of PointNet++: 10,000 points with
normals, which is read as far as points are asked for.
"""

from __future__ import annotations

from pathlib import Path

from foveal.data.points.clouds import Layout
from foveal.data.points.hdf5 import Hdf5Clouds
from foveal.data.points.options import PointOptions
from foveal.data.points.text import TextClouds
from foveal.errors import DataError

HDF5, TEXT = "modelnet40_ply_hdf5_2048", "modelnet40_normal_resampled"
PAGE = "https://shapenet.cs.stanford.edu/media/"
TRAINED, HELD_OUT = 9840, 2468
"""Clouds of the HDF5 files, as their authors count them."""


def read(path: Path, options: PointOptions) -> Layout:
    """Whichever layout lies at ``path`` or in the folder of its archive there.

    Raises:
        DataError: neither does, or what does is not whole.
    """
    for folder in (path / HDF5, path):
        if (folder / "train_files.txt").is_file():
            return _hdf5(folder, options)
    for folder in (path / TEXT, path):
        named = sorted(folder.glob("*_shape_names.txt")) if folder.is_dir() else []
        first = [each for each in named if each.name.startswith("modelnet40_")] + named
        if first:
            return _text(folder, first[0].name.removesuffix("_shape_names.txt"), options)
    raise DataError(f"load: there is no {options.name} in {path}. {shape()}")


def shape() -> str:
    """What to fetch, and how the folder has to look."""
    return (
        f"Fetch {HDF5}.zip or {TEXT}.zip from {PAGE}, unpack it, and give its folder: it holds train_files.txt, "
        "test_files.txt, shape_names.txt and ply_data_train0.h5 and so on; or modelnet40_train.txt, "
        "modelnet40_test.txt, modelnet40_shape_names.txt and a folder of text files a class."
    )


def lines(path: Path) -> list[str]:
    """The lines of a list that are not empty.

    Raises:
        DataError: it is missing, or has none.
    """
    try:
        told = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError as error:
        raise DataError(f"load: {path} cannot be opened: {error.strerror}. Unpack the archive anew.") from error
    told = [line for line in told if line]
    if not told:
        raise DataError(f"load: {path} is empty, a name on each line is wanted. Unpack the archive anew.")
    return told


def listed(folder: Path, name: str) -> list[Path]:
    """The HDF5 files that a list names, which gives them with a path of its authors' machine in front."""
    found = []
    for line in lines(folder / name):
        here = folder / line
        found.append(here if here.is_file() else folder / Path(line).name)
        if not found[-1].is_file():
            raise DataError(f"load: there is no {found[-1]}, which {folder / name} names. Unpack the archive anew.")
    return found


def _hdf5(folder: Path, options: PointOptions) -> Layout:
    classes = tuple(lines(folder / "shape_names.txt"))
    train, val = (
        Hdf5Clouds(listed(folder, name), folder, classes, {}, options.normals)
        for name in ("train_files.txt", "test_files.txt")
    )
    return Layout(train, val, classes, centred=True)


def _text(folder: Path, prefix: str, options: PointOptions) -> Layout:
    classes = tuple(lines(folder / f"{prefix}_shape_names.txt"))
    train, val = (_named(folder, f"{prefix}_{side}.txt", classes, options) for side in ("train", "test"))
    return Layout(train, val, classes, whole=False)


def _named(folder: Path, name: str, classes: tuple[str, ...], options: PointOptions) -> TextClouds:
    """The files of one list, whose lines are a class, an underscore and a number."""
    names, labels = [], []
    for line in lines(folder / name):
        own = line.rpartition("_")[0]
        if own not in classes:
            raise DataError(
                f"load: {folder / name} names {line}, and there is no class {own or line!r}. Unpack the archive anew."
            )
        names.append(f"{own}/{line}.txt")
        labels.append(classes.index(own))
    return TextClouds(folder, names, labels, classes, parts={}, separator=",", normals=options.normals)
