"""Stereo sets by name: where their files lie, which of them can be read, and the two splits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foveal.data.checks import readable
from foveal.data.generated import place_of
from foveal.data.listing import Entry, as_files
from foveal.data.options import DataOptions
from foveal.data.stereo.layouts import PairFiles, kitti, scene_flow, shape
from foveal.data.stereo.options import StereoData
from foveal.data.stereo.pairs import StereoPairs
from foveal.data.stereo.pfm import check_pfm
from foveal.errors import DataError, OptionError

GENERATED = "photo-planes"
PUBLISHED = {"scene-flow": (35_454, 4_370), "kitti2012": (160, 34), "kitti2015": (160, 40), GENERATED: (160, 32)}
"""Pairs to train on and held out, as the authors of PSMNet count them; of photo-planes as they are made."""

ONLY = {
    "frames": "scene-flow",
    "subsets": "scene-flow",
    "hidden": "kitti",
    "train_pairs": "kitti",
    "train_all": "kitti",
}
"""Options of one family of sets."""


@dataclass(frozen=True)
class StereoSet:
    """Pairs by name, split and described."""

    name: str
    train: StereoPairs
    val: StereoPairs
    fingerprint: str
    """Changes when names or sizes of files do."""
    skipped: tuple[str, ...]
    """One line for each pair that was left out: the file and why."""


def load_stereo(options: StereoData) -> StereoSet:
    """The pairs that these options name.

    Raises:
        DataError: the files are missing or not what they should be; the message says how they have to look.
        OptionError: an option is out of range.
    """
    check(options)
    root = _root(options)
    if options.name == GENERATED:
        options = replace(options, subsets=("flyingthings3d",), frames="cleanpass")
    splits = (kitti if options.name.startswith("kitti") else scene_flow)(root, options)
    files = sorted({name for pairs in splits for pair in pairs for name in (pair.left, pair.right, pair.disparity)})
    sizes = dict(zip(files, _stats(root, files), strict=True))
    reasons = _unreadable(root, splits, sizes, options)
    kept = [[pair for pair in pairs if not _bad(pair, reasons)] for pairs in splits]
    for side, pairs in zip(("to train on", "for validation"), kept, strict=True):
        if not pairs:
            name, why = next(iter(reasons.items()))
            raise DataError(f"load: {root} holds no whole pair {side}: {name}: {why}, say. Fetch the archives anew.")
    lines = tuple(f"{name}: {why}" for name, why in sorted(reasons.items()))
    digest = hashlib.sha256("\0".join(f"{name} {size}" for name, (size, _) in sizes.items()).encode())
    digest.update("\0".join((str(len(kept[0])), *(name for name, _ in sorted(reasons.items())))).encode())
    print_ = f"{options.name}-{digest.hexdigest()[:16]}"
    return StereoSet(
        options.name, StereoPairs(root, kept[0], options.crop), StereoPairs(root, kept[1], None), print_, lines
    )


def check(options: StereoData) -> None:
    """Raise OptionError for what is out of range, or means nothing for the set that is named."""
    if options.name not in PUBLISHED:
        raise OptionError(f"load: there is no stereo set {options.name!r}. Use {', '.join(PUBLISHED)}.")
    plain, family = StereoData(), options.name.rstrip("0125")
    for name, own in ONLY.items():
        if own != family and getattr(options, name) != getattr(plain, name):
            raise OptionError(
                f"load: --data.{name.replace('_', '-')} means nothing for {options.name}. Leave it out, or use another "
                "--data.name."
            )
    if min(options.crop) < 16 or any(length % 16 for length in options.crop):
        raise OptionError(
            f"load: --data.crop must be rows and columns in multiples of 16, got {options.crop[0]} and "
            f"{options.crop[1]}. Use 256 512, say."
        )


def _root(options: StereoData) -> Path:
    wanted = shape("scene-flow" if options.name == GENERATED else options.name, options)
    root = place_of(options.name, options.path, wanted)
    if not root.is_dir():
        raise DataError(f"load: there is no folder {root}. {wanted}")
    return root


def _stats(root: Path, names: Sequence[str]) -> list[tuple[int, int]]:
    """Size and time of each file, asked for in several threads."""

    def stat(name: str) -> tuple[int, int]:
        told = (root / name).stat()
        return told.st_size, told.st_mtime_ns

    with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(stat, names))


def _unreadable(
    root: Path, splits: Sequence[list[PairFiles]], sizes: dict[str, tuple[int, int]], options: StereoData
) -> dict[str, str]:
    """Why files cannot be read, or are to be left out."""
    pairs = {pair.left: pair for side in splits for pair in side}.values()
    maps = [pair.disparity for pair in pairs if pair.disparity.endswith(".pfm")]
    images = sorted(sizes.keys() - set(maps))
    entries: list[Entry] = [(name, *sizes[name]) for name in images]
    look = DataOptions(verify=options.verify, skip=options.skip)
    _, reasons = readable([as_files(root, entries, np.zeros(len(entries), np.int32))], look)
    with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
        told = zip(maps, pool.map(lambda name: check_pfm(root / name), maps), strict=True)
        return reasons | {name: why for name, why in told if why is not None}


def _bad(pair: PairFiles, reasons: dict[str, str]) -> bool:
    return any(name in reasons for name in (pair.left, pair.right, pair.disparity))
