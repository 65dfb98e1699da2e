"""Reading one image file, whatever a camera, a scanner or a broken download made of it."""

from __future__ import annotations

import errno
import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foveal.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
# JPEG, PNG, GIF: how a file begins, and how it ends.
ENDS = ((b"\xff\xd8", b"\xff\xd9"), (b"\x89PNG", b"IEND\xaeB`\x82"), (b"GIF8", b"\x00;"))
UNREACHABLE = {errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT}
ORIENTATION = 0x0112  # the EXIF tag of how a camera was held
MOST_PIXELS = 100_000_000  # more is a decompression bomb, or a map that has to be cut up first


class UnreadableError(ValueError):
    """Why a file is no image that can be read."""


def read_picture(source: Path | bytes, *, upright: bool = True) -> Image:
    """A file, or the bytes of one, as 8-bit RGB, the first frame of several, what is transparent on white.

    Args:
        source: a file or its bytes.
        upright: turned as the camera was held, and not as it is stored.

    Raises:
        UnreadableError: it is empty, truncated, no image, or has too many pixels.
        DataError: the file cannot be opened, whatever is in it.
    """
    with quiet():
        return guarded(source, partial(rgb, upright=upright))


def check_picture(source: Path | bytes, *, whole: bool) -> None:
    """Raise as ``read_picture`` would, or nearly so: without the cost of all pixels.

    Args:
        source: a file or its bytes.
        whole: read to the end, in less detail where the format allows; otherwise that only where the beginning is no
            image of a known format, or the mark that ends an image of this format is not at the end.
    """
    guarded(source, _skim if whole or not _ends(source) else _known)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of decoders. That is a state of the process: the first thread inside sets it, and the last
    to leave puts back what was there."""
    with _QUIET:
        if not _inside:
            _before.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        _inside.append(None)
    try:
        yield
    finally:
        with _QUIET:
            _inside.pop()
            if not _inside:
                _before.close()


_QUIET, _inside, _before = threading.Lock(), list[None](), ExitStack()


def guarded(source: Path | bytes, use: Any) -> Any:
    """What ``use`` makes of the opened image; whatever a decoder raises becomes one of the two errors above."""
    from PIL import Image, UnidentifiedImageError

    try:
        if (len(source) if isinstance(source, bytes) else source.stat().st_size) == 0:
            raise UnreadableError("the file is empty")
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise UnreadableError(f"{width}x{height} pixels are more than {MOST_PIXELS:,}")
            return use(image)
    except (UnreadableError, DataError):
        raise
    except UnidentifiedImageError as error:
        raise UnreadableError("no image format is recognised") from error
    except Image.DecompressionBombError as error:
        raise UnreadableError("it has too many pixels") from error
    # Decoders raise nearly anything on damaged files: OSError, SyntaxError, struct.error, IndexError, MemoryError.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNREACHABLE:
            # Says nothing of the image, and must not be remembered of it.
            raise DataError(f"load: {source!s:.500} cannot be opened: {error.strerror}. Make it readable.") from error
        if isinstance(error, FileNotFoundError):
            raise UnreadableError("there is no such file") from error
        raise UnreadableError(" ".join(str(error).split()) or type(error).__name__) from error


def _skim(image: Any) -> None:
    image.draft("RGB", (max(image.width // 8, 1), max(image.height // 8, 1)))
    image.load()


def _known(image: Any) -> None:
    """Opened is enough: the header was read."""


def _ends(source: Path | bytes) -> bool:
    """Whether the last bytes are those that end an image of the format that the first bytes tell."""
    if isinstance(source, bytes):
        first, last = source[:4], source[-12:]
    else:
        try:
            with source.open("rb") as file:
                first = file.read(4)
                file.seek(-min(12, source.stat().st_size), os.SEEK_END)
                last = file.read()
        except OSError:
            return False  # what is wrong is said by who reads it whole
    return any(first.startswith(begin) and last.endswith(end) for begin, end in ENDS)


def rgb(image: Any, *, upright: bool = True) -> Image:
    """An opened image as 8-bit RGB, upright, the first frame of several, what is transparent on white."""
    from PIL import Image, ImageOps

    image.load()
    turned = upright and image.getexif().get(ORIENTATION, 1) != 1
    if image.mode == "RGB" and "transparency" not in image.info and not turned:
        return image

    image = ImageOps.exif_transpose(image) if upright else image
    mode: str = image.mode
    if mode.startswith("I") or mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: Any) -> Any:
    """16-bit, 32-bit and float greys on the scale that their largest value tells."""
    values = np.nan_to_num(values.astype(np.float64))
    largest = values.max(initial=0.0)
    scale = 1.0 if largest <= 1 and values.dtype.kind == "f" and (values % 1).any() else 255.0
    scale = 65535.0 if largest > 255 else scale
    return np.clip(values / max(scale, largest) * 255, 0, 255).round().astype(np.uint8)
