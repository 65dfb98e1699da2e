"""Data sets by name; any other name is the path of a folder."""

from __future__ import annotations

import difflib
from pathlib import Path

from foveal.data.images import ImageData
from foveal.errors import DataError, OptionError

NAMES = ("digits", "digit-pairs")


def load(name: str, *, size: int | None = None) -> ImageData:
    """A data set by name or by the path of its folder.

    Args:
        name: one of ``NAMES``, or a folder with ``train/`` and ``val/`` (or neither: every fifth image is
            validation then).
        size: height and width in pixels; None takes what the data is made for (8, 64, and 224 for a folder).

    Raises:
        DataError: the folder is missing or a file, has no classes, or holds no readable image.
        OptionError: ``name`` is empty, or ``size`` is too small.
    """
    if not name.strip():
        raise OptionError(f"load: the name is empty. Use {', '.join(NAMES)}, or the path of a folder.")
    if size is not None and size < 8:
        raise OptionError(f"load: size must be at least 8 pixels, got {size}. Use 8 or more, or leave it out.")
    if name == "digits":
        from foveal.data.digits import digits

        return digits(size or 8)
    if name == "digit-pairs":
        from foveal.data.digit_pairs import digit_pairs

        return digit_pairs(size or 64)
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
    from foveal.data.folder import folder

    return folder(Path(name), size or 224)
