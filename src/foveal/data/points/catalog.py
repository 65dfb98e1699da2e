"""Sets of clouds by name."""

from __future__ import annotations

import hashlib
from pathlib import Path

from foveal.data.generated import place_of
from foveal.data.points import modelnet, shapenet
from foveal.data.points.augmentation import check as check_augmentation
from foveal.data.points.clouds import Layout, PointData
from foveal.data.points.options import PointOptions
from foveal.data.points.split import PointSplit
from foveal.errors import DataError, OptionError

GENERATED = {"solids": modelnet, "solid-parts": shapenet}
READERS = {
    "modelnet40": modelnet,
    "shapenet-part": shapenet,
    "clouds": modelnet,
    "cloud-parts": shapenet,
} | GENERATED
WITH_PARTS = tuple(name for name, room in READERS.items() if room is shapenet)
WHOLE_UP_TO = 2**31  # bytes; reading more before training takes longer than who trains wants to wait


def load(options: PointOptions) -> PointData:
    """The clouds that these options name, from where they say.

    Raises:
        DataError: files are missing or not what they should be; the message says how they have to look.
        OptionError: an option is out of range.
    """
    check(options)
    room = READERS[options.name]
    layout = room.read(place_of(options.name, options.path, room.shape()), options)
    skipped: tuple[str, ...] = ()
    if options.skip is not None:
        names = _to_skip(Path(options.skip))
        layout = layout.without(set(names), options.skip)
        skipped = tuple(f"{name}: it is named by --data.skip" for name in names)
    _look(layout, options)
    for side, clouds in (("train", layout.train), ("validate", layout.val)):
        if len(clouds) == 0:
            raise DataError(f"load: {options.name} has no clouds to {side} on. Unpack the archive anew.")
    normalise = _normalises(layout, options)
    train, val = (
        PointSplit(clouds, options, trained=clouds is layout.train, normalise=normalise)
        for clouds in (layout.train, layout.val)
    )
    return PointData(
        options.name, layout.classes, layout.parts, layout.part_names, 6 if options.normals else 3,
        options.unit_sphere is not False, _fingerprint(layout, options), skipped, train, val,
    )  # fmt: skip


def check(options: PointOptions) -> None:
    """Raise OptionError where a name or a number is out of range."""
    if options.name not in READERS:
        raise OptionError(f"load: there is no set of clouds {options.name!r}. Use {', '.join(READERS)}.")
    if options.points < 1:
        raise OptionError(f"load: points must be at least 1, got {options.points}. Use 1024.")
    if options.subset not in ("first", "random"):
        raise OptionError(f"load: there is no subset {options.subset!r}. Use first or random.")
    if options.verify not in (None, "whole", "sizes"):
        raise OptionError(f"load: there is no verify {options.verify!r}. Use whole or sizes.")
    shapenet.check(options)
    check_augmentation(options.augmentation)


def _normalises(layout: Layout, options: PointOptions) -> bool:
    if options.unit_sphere is not None:
        return options.unit_sphere
    # What is made here, or brought along, is not as the published files are, whatever its layout.
    return not layout.centred or options.name not in ("modelnet40", "shapenet-part")


def _look(layout: Layout, options: PointOptions) -> None:
    """Find before training what would stop it."""
    size = layout.train.bytes + layout.val.bytes
    whole = layout.whole and size <= WHOLE_UP_TO if options.verify is None else options.verify == "whole"
    for clouds in (layout.train, layout.val):
        if whole:
            clouds.check()
        else:
            for index in range(len(clouds)):
                clouds.look(index)


def _to_skip(path: Path) -> list[str]:
    try:
        told = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"load: --data.skip {path} cannot be opened: {error.strerror}. Name a text file.") from error
    return sorted({line.strip() for line in told if line.strip()})


def _fingerprint(layout: Layout, options: PointOptions) -> str:
    """Of names, labels and sizes: what a run is bound to."""
    digest = hashlib.sha256()
    for clouds in (layout.train, layout.val):
        digest.update("\n".join(clouds.names).encode())
        digest.update(clouds.labels.tobytes())
        digest.update(str(clouds.bytes).encode())
    digest.update("\n".join((*layout.classes, *layout.part_names)).encode())
    return f"{options.name}-{digest.hexdigest()[:16]}"
