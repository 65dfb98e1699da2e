"""Where the files of a stereo set lie, in the layouts in which Scene Flow and KITTI are published."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from foveal.data.stereo.options import StereoData
from foveal.errors import DataError, OptionError

FLYING, MONKAA, DRIVING = "flyingthings3d", "monkaa", "driving"
IMAGES = (".png", ".webp")
FOCAL = re.compile(r"\d+mm_focallength$")
SCENE_FLOW = "https://lmb.informatik.uni-freiburg.de/resources/datasets/SceneFlowDatasets.en.html"
KITTI = "https://www.cvlibs.net/datasets/kitti"


@dataclass(frozen=True)
class PairFiles:
    """Three files of one pair, relative to the folder of the set."""

    left: str
    right: str
    disparity: str


Split = tuple[list[PairFiles], list[PairFiles]]


def scene_flow(root: Path, options: StereoData) -> Split:
    """Pairs to train on and the TEST part of FlyingThings3D, each sorted.

    Raises:
        DataError: a subset that is asked for, or a file of a pair, is missing.
    """
    if not options.subsets:
        raise OptionError("load: --data.subsets is empty. Name flyingthings3d, monkaa or driving.")
    found: dict[str, list[PairFiles]] = {FLYING: [], MONKAA: [], DRIVING: [], "test": []}
    for frames, maps in _frames_and_maps(root, options.frames):
        for sequence in _sequences(root / frames):
            found[_subset(sequence)] += _of_sequence(root, frames, maps, sequence)
    missing = [name for name in (*options.subsets, "test") if not found[name]]
    if missing:
        told = ["the TEST part of FlyingThings3D" if name == "test" else name for name in missing]
        raise DataError(
            f"load: {root} holds no pairs of {', '.join(told)} in frames_{options.frames}. "
            f"{shape('scene-flow', options)}"
        )
    train = [pair for name in options.subsets for pair in found[name]]
    return sorted(train, key=_key), sorted(found["test"], key=_key)


def kitti(root: Path, options: StereoData) -> Split:
    """Pairs of the training folder: the first by name to train on, the rest for validation.

    Raises:
        DataError: the folder has another layout, a file of a pair is missing, or nothing is left for validation.
    """
    folder = next((f for f in ("training", "") if _kitti_sides(root / f, options)), None)
    if folder is None:
        raise DataError(f"load: there is no {options.name} in {root}. {shape(options.name, options)}")
    sides = _kitti_sides(root / folder, options)
    assert sides is not None
    before = f"{folder}/" if folder else ""
    names = sorted(name for name in os.listdir(root / folder / sides[0]) if name.endswith("_10.png"))
    pairs = [PairFiles(*(f"{before}{side}/{name}" for side in sides)) for name in names]
    _require(root, pairs)
    count = options.train_pairs
    if not 0 < count < len(pairs):
        raise DataError(
            f"load: {root} holds {len(pairs)} pairs, --data.train-pairs {count} leaves none to train on or none for "
            f"validation. {shape(options.name, options)}"
        )
    return pairs if options.train_all else pairs[:count], pairs[count:]


def shape(name: str, options: StereoData) -> str:
    """What to fetch, and how the folder has to look."""
    if name == "scene-flow":
        return (
            f"Fetch frames and disparities from {SCENE_FLOW} and give the folder that holds frames_{options.frames}/ "
            "and disparity/ (TRAIN/A/0000/left/0006.png and .pfm), these inside FlyingThings3D/, Monkaa/ and Driving/, "
            "or named as PSMNet's code wants them; --data.subsets names fewer."
        )
    left, right, maps = _kitti_names(name, options)[0]
    year = name.removeprefix("kitti")
    page = f"{KITTI}/eval_{'stereo_flow' if year == '2012' else 'scene_flow'}.php?benchmark=stereo"
    return f"Fetch the data of {page} and give the folder that holds training/{left}/, {right}/ and {maps}/."


def _frames_and_maps(root: Path, kind: str) -> Iterator[tuple[str, str]]:
    """Folders of frames with that of their disparities, relative to the root."""
    if not root.is_dir():
        return
    own = {"flyingthings3d", "monkaa", "driving"}
    inside = ["", *sorted(f"{name}/" for name in os.listdir(root) if name.lower() in own and (root / name).is_dir())]
    for base in inside:
        for before in ("", "monkaa_", "driving_"):
            frames = f"{base}{before}frames_{kind}"
            maps = next((m for m in (f"{base}{before}disparity", f"{base}{before}frames_disparity")
                         if (root / m).is_dir()), f"{base}{before}disparity")  # fmt: skip
            if (root / frames).is_dir():
                yield frames, maps


def _sequences(frames: Path) -> Iterator[str]:
    """Every folder below that holds left/, relative to ``frames``."""
    for place, inner, _ in os.walk(frames):
        inner.sort()
        if "left" in inner:
            inner[:] = [name for name in inner if name not in ("left", "right")]
            yield os.path.relpath(place, frames).replace(os.sep, "/")


def _subset(sequence: str) -> str:
    first = sequence.split("/")[0]
    if first == "TEST":
        return "test"
    return FLYING if first == "TRAIN" else DRIVING if FOCAL.match(first) else MONKAA


def _of_sequence(root: Path, frames: str, maps: str, sequence: str) -> list[PairFiles]:
    """The pairs of one folder; an error where a left image lacks something."""
    there = frozenset(_names(root / frames / sequence / "right"))
    known = frozenset(_names(root / maps / sequence / "left"))
    pairs = []
    for name in sorted(_names(root / frames / sequence / "left")):
        stem, kind = os.path.splitext(name)
        if kind.lower() not in IMAGES or name.startswith("."):
            continue
        inside = f"{frames}/{sequence}"
        pair = PairFiles(f"{inside}/left/{name}", f"{inside}/right/{name}", f"{maps}/{sequence}/left/{stem}.pfm")
        if name not in there or f"{stem}.pfm" not in known:
            _refuse(root, pair.left, pair.disparity if name in there else pair.right)
        pairs.append(pair)
    return pairs


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _kitti_names(name: str, options: StereoData) -> list[tuple[str, str, str]]:
    told = "occ" if options.hidden else "noc"
    if name == "kitti2015":
        return [("image_2", "image_3", f"disp_{told}_0")]
    return [("colored_0", "colored_1", f"disp_{told}"), ("image_0", "image_1", f"disp_{told}")]


def _kitti_sides(folder: Path, options: StereoData) -> tuple[str, str, str] | None:
    """The folders of left images, right images and disparities; of KITTI 2012 colours where they are, else grey."""
    for sides in _kitti_names(options.name, options):
        if all((folder / side).is_dir() for side in sides):
            return sides
    return None


def _require(root: Path, pairs: Sequence[PairFiles]) -> None:
    for pair in pairs:
        for file in (pair.right, pair.disparity):
            if not (root / file).is_file():
                _refuse(root, pair.left, file)


def _refuse(root: Path, left: str, missing: str) -> None:
    raise DataError(f"load: {root / left} has no {missing} beside it. Unpack the archives anew, all into one folder.")


def _key(pair: PairFiles) -> list[str]:
    return pair.left.split("/")
