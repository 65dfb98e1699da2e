"""Clouds with a part for each point, in the two layouts in which ShapeNet-part (Yi et al., 2016) is published.

HDF5, by the authors of PointNet: 2048 points, numbers of the parts in a table beside. Text, by those of PointNet++: a
file for each of some 2,600 points with normals, sorted into categories; its parts are numbered by a table of the field.
"""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path
from typing import Any

from foveal.data.points.clouds import Layout
from foveal.data.points.hdf5 import Hdf5Clouds
from foveal.data.points.modelnet import PAGE, lines, listed
from foveal.data.points.options import PointOptions
from foveal.data.points.text import TextClouds
from foveal.errors import DataError, OptionError

HDF5, TEXT = "hdf5_data", "shapenetcore_partanno_segmentation_benchmark_v0_normal"
TABLE = "overallid_to_catid_partid.json"
NAMES = "part_names.txt"
"""Of the parts, one a line: not in the published archives, whose parts have numbers alone."""
COUNTS = {
    "Airplane": 4, "Bag": 2, "Cap": 2, "Car": 4, "Chair": 4, "Earphone": 3, "Guitar": 3, "Knife": 2, "Lamp": 4,
    "Laptop": 2, "Motorbike": 6, "Mug": 2, "Pistol": 3, "Rocket": 3, "Skateboard": 3, "Table": 3,
}  # fmt: skip
"""Parts of each category; they are numbered from the first category to the last."""
TRAINED, TRAINED_ALONE = 14_007, 12_137
"""Clouds to train on, with and without those of the val lists, as the authors count them."""


def published_parts() -> dict[str, tuple[int, ...]]:
    """Numbers of the 50 parts, by category."""
    ends = accumulate(COUNTS.values())
    return {name: tuple(range(end - COUNTS[name], end)) for name, end in zip(COUNTS, ends, strict=True)}


def read(path: Path, options: PointOptions) -> Layout:
    """Whichever layout lies at ``path`` or in the folder of its archive there.

    Raises:
        DataError: neither does, or what does is not whole.
    """
    for folder in (path / HDF5, path):
        if (folder / TABLE).is_file():
            return _hdf5(folder, options)
    for folder in (path / TEXT, path):
        if (folder / "synsetoffset2category.txt").is_file():
            return _text(folder, options)
    raise DataError(f"load: there is no {options.name} in {path}. {shape()}")


def shape() -> str:
    """What to fetch, and how the folder has to look."""
    return (
        f"Fetch shapenet_part_seg_hdf5_data.zip or {TEXT}.zip from {PAGE}, unpack it, and give its folder: it holds "
        f"all_object_categories.txt, {TABLE}, train_hdf5_file_list.txt, val_hdf5_file_list.txt, "
        "test_hdf5_file_list.txt and ply_data_train0.h5 and so on; or synsetoffset2category.txt, train_test_split/ "
        "and a folder of text files a category."
    )


def _sides(options: PointOptions) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (("train", "val"), ("test",)) if options.held_out == "test" else (("train",), ("val",))


def categories(path: Path) -> dict[str, str]:
    """Synset to name, in order, of lines like ``Airplane 02691156``.

    Raises:
        DataError: a line has not two words.
    """
    found: dict[str, str] = {}
    for line in lines(path):
        words = line.split()
        if len(words) != 2:
            raise DataError(f"load: {path} must have a name and a synset a line, got {line!r}. Unpack it anew.")
        found[words[1]] = words[0]
    return found


def _hdf5(folder: Path, options: PointOptions) -> Layout:
    named = categories(folder / "all_object_categories.txt")
    classes, parts = tuple(named.values()), _parts(folder / TABLE, named)
    sides = []
    for side in _sides(options):
        files = [path for name in side for path in listed(folder, f"{name}_hdf5_file_list.txt")]
        sides.append(Hdf5Clouds(files, folder, classes, parts, options.normals))
    names = _part_names(folder / NAMES, parts)
    return Layout(sides[0], sides[1], classes, parts, names, centred=True)


def _parts(path: Path, named: dict[str, str]) -> dict[str, tuple[int, ...]]:
    table = _json(path)
    rows = table if isinstance(table, list) else []
    found: dict[str, tuple[int, ...]] = {name: () for name in named.values()}
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != 2 or not isinstance(row[0], str) or row[0] not in named:
            raise DataError(f"load: {path} must hold a category and a part a row, got {row!r}. Unpack it anew.")
        found[named[row[0]]] += (number,)
    without = [name for name, numbers in found.items() if not numbers]
    if without:
        raise DataError(f"load: {path} has no parts of {', '.join(without)}. Unpack it anew.")
    return found


def _part_names(path: Path, parts: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    count = sum(map(len, parts.values()))
    if path.is_file():
        told = tuple(lines(path))
        if len(told) != count:
            raise DataError(f"load: {path} must name {count} parts, one a line, got {len(told)}. Write them all.")
        return told
    return numbered(parts)


def numbered(parts: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    """A category and a number for each part, where nobody has named them."""
    names = {number: f"{name} {n}" for name, own in parts.items() for n, number in enumerate(own)}
    return tuple(names[number] for number in sorted(names))


def _text(folder: Path, options: PointOptions) -> Layout:
    named = categories(folder / "synsetoffset2category.txt")
    classes, known = tuple(named.values()), published_parts()
    unknown = [name for name in classes if name not in known]
    if unknown:
        raise DataError(
            f"load: {folder / 'synsetoffset2category.txt'} names {unknown[0]}, which is no category of ShapeNet-part, "
            "so nobody says what its parts are. Write it in the HDF5 layout, which does."
        )
    train, val = (_of_lists(folder, side, named, known, options) for side in _sides(options))
    parts = {name: known[name] for name in classes}
    return Layout(train, val, classes, parts, numbered(known), whole=False)


def _of_lists(
    folder: Path, sides: tuple[str, ...], named: dict[str, str], parts: Any, options: PointOptions
) -> TextClouds:
    names, labels, synsets = [], [], list(named)
    for side in sides:
        path = folder / "train_test_split" / f"shuffled_{side}_file_list.json"
        rows = _json(path)
        for row in rows if isinstance(rows, list) else [None]:
            words = row.split("/") if isinstance(row, str) else []
            if len(words) < 2 or words[-2] not in named:
                raise DataError(f"load: {path} must name files as shape_data/<synset>/<name>, got {row!r}.")
            names.append(f"{words[-2]}/{words[-1]}.txt")
            labels.append(synsets.index(words[-2]))
    return TextClouds(folder, names, labels, list(named.values()), parts=parts, separator=None, normals=options.normals)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"load: {path} cannot be opened: {error.strerror}. Unpack the archive anew.") from error
    except ValueError as error:
        raise DataError(f"load: {path} is no JSON: {error}. Unpack the archive anew.") from error


def check(options: PointOptions) -> None:
    """Raise OptionError where ``held_out`` names nothing."""
    if options.held_out not in ("test", "val"):
        raise OptionError(f"load: there is no held_out {options.held_out!r}. Use test or val.")
