"""Data sets by name; any other name is the path of a folder."""

from __future__ import annotations

import difflib
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from foveal.data.generated import place_of
from foveal.data.images import ImageData
from foveal.data.options import Augmentation, DataOptions
from foveal.errors import DataError, OptionError

SHIPPED = ("digits", "digit-pairs")
# Names that need the path of their folder, with the function that reads it: (path, options) to data.
READERS = {
    "cifar10": "cifar:cifar",
    "cifar100": "cifar:cifar",
    "tiny-imagenet": "tiny_imagenet:tiny_imagenet",
    "imagenet": "imagenet:imagenet",
    "imagenet-shards": "shards:shards",
    "shards": "shards:shards",
    "folder": "folder:folder",
}
NAMES = (*SHIPPED, *READERS)
IN_ONE_PIECE = (*SHIPPED, "cifar10", "cifar100")
"""Sets that have no file for each image."""
LEAST = 8  # pixels


def load(name: str, *, size: int | None = None, options: DataOptions | None = None) -> ImageData:
    """A data set by name or by the path of its folder.

    Args:
        name: one of ``NAMES``, or a folder with ``train/`` and ``val/`` (or neither: every fifth image is
            validation then).
        size: height and width in pixels; None takes what the data is made for (8, 24, and 224 for a folder).
        options: everything else; ``name`` and ``size`` go before what stands there.

    Raises:
        DataError: the folder is missing or a file, has no classes, or holds no readable image.
        OptionError: ``name`` is empty, or an option is out of range.
    """
    given = options or DataOptions()
    return load_options(replace(given, name=name, size=size if size is not None else given.size))


def load_options(options: DataOptions) -> ImageData:
    """The data set that these options name, from where they say, drawn as they say.

    Raises:
        DataError: the files are missing or not what they should be; the message says how they have to look.
        OptionError: an option is out of range.
    """
    name = options.name
    if not name.strip():
        raise OptionError(f"load: the name is empty. Use {', '.join(NAMES)}, or the path of a folder.")
    if options.size is not None and options.size < LEAST:
        raise OptionError(f"load: size must be at least {LEAST} pixels, got {options.size}. Use 8 or more.")
    from foveal.data.augmentation import check

    check(options.augmentation)
    if name in IN_ONE_PIECE:
        _check_files(options)
    if name in SHIPPED:
        return _shipped(options)
    module, _, reader = READERS.get(name, READERS["folder"]).partition(":")
    room = import_module(f"foveal.data.{module}")
    if name not in READERS:
        path = _folder_named(name, options)
    else:
        path = place_of(name, options.path, room.shape(name))
    data: ImageData = getattr(room, reader)(path, options)
    return data


def _check_files(options: DataOptions) -> None:
    for name in ("verify", "skip"):
        if getattr(options, name) is not None:
            raise OptionError(f"load: --data.{name} is of image files, and {options.name} has none. Leave it out.")


def _shipped(options: DataOptions) -> ImageData:
    """Images that ship, which fit in memory: as they are made, or drawn as for any other set."""
    from foveal.data.digit_pairs import SIZE, digit_pairs
    from foveal.data.digits import digits

    if options.path is not None:
        raise OptionError(f"load: {options.name} ships with foveal and has no path, got {options.path}. Leave it out.")
    pairs = options.name == "digit-pairs"
    drawn = replace(options.augmentation, mixup=0.0, cutmix=0.0, switch=0.5) != Augmentation()
    resized = options.interpolation != "bilinear"
    if not drawn and not resized and options.crop_share in (None, 1.0):
        return digit_pairs(options.size or SIZE) if pairs else digits(options.size or 8)
    if pairs:
        raise OptionError(
            "load: digit-pairs draws its own pairs for each epoch and takes no augmentation but mixup and cutmix, no "
            "interpolation and no crop_share. Leave them out."
        )
    from foveal.data.memory import redrawn

    shift = max(1, (options.size or 8) // 12)
    return redrawn(digits(8), options, Augmentation(crop="padded", padding=shift, flip=0.0))


def _folder_named(name: str, options: DataOptions) -> Path:
    """The folder whose path is given as the name."""
    if options.path is not None:
        near = difflib.get_close_matches(name, NAMES, n=1)
        raise DataError(
            f"load: there is no data set {name!r}. {f'Did you mean {near[0]}? ' if near else ''}"
            f"Use {', '.join(NAMES)}; a folder of images at {options.path} is named folder."
        )
    if Path(name).is_file():
        raise DataError(
            f"load: {name} is a file, a folder of images is wanted. Give one that holds train/ and val/, each with one "
            "folder of images a class."
        )
    if not Path(name).is_dir():
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise DataError(
            f"load: there is no data set or folder {name!r}. {hint}Use {', '.join(NAMES)}, or the path of a folder "
            f"that holds train/ and val/, each with one folder of images a class."
        )
    return Path(name)
