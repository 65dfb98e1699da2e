"""Reading one image file, whatever a camera, a scanner or a broken download made of it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
ORIENTATION = 0x0112  # the EXIF tag of how a camera was held
MOST_PIXELS = 100_000_000  # more is a decompression bomb, or a map that has to be cut up first


class UnreadableError(ValueError):
    """Why a file is no image that can be read."""


def read_picture(path: Path) -> Image:
    """The image as 8-bit RGB, upright, the first frame of several, what is transparent on white.

    Raises:
        UnreadableError: it is empty, truncated, no image, or has too many pixels.
    """
    return _guarded(path, rgb)


def check_picture(path: Path) -> None:
    """Read a file to its end, in less detail where its format allows, and raise as ``read_picture`` would."""
    _guarded(path, _skim)


def _guarded(path: Path, use: Any) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        if path.stat().st_size == 0:
            raise UnreadableError("the file is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise UnreadableError(f"{width}x{height} pixels are more than {MOST_PIXELS:,}")
                return use(image)
    except UnreadableError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableError("no image format is recognised") from error
    except Image.DecompressionBombError as error:
        raise UnreadableError("it has too many pixels") from error
    # Decoders raise nearly anything on damaged files: OSError, SyntaxError, struct.error, IndexError, MemoryError.
    except Exception as error:
        raise UnreadableError(" ".join(str(error).split()) or type(error).__name__) from error


def _skim(image: Any) -> None:
    image.draft("RGB", (max(image.width // 8, 1), max(image.height // 8, 1)))
    image.load()


def rgb(image: Any) -> Image:
    """An opened image as 8-bit RGB, upright, the first frame of several, what is transparent on white."""
    from PIL import Image, ImageOps

    if image.mode == "RGB" and "transparency" not in image.info and image.getexif().get(ORIENTATION, 1) == 1:
        image.load()
        return image

    image.load()
    upright = ImageOps.exif_transpose(image)
    mode: str = upright.mode
    if mode.startswith("I") or mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(upright))).convert("RGB")
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info:
        over = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return upright.convert("RGB")


def _eight_bits(values: Any) -> Any:
    """16-bit, 32-bit and float greys on the scale that their largest value tells."""
    values = np.nan_to_num(values.astype(np.float64))
    largest = values.max(initial=0.0)
    scale = 1.0 if largest <= 1 and values.dtype.kind == "f" and (values % 1).any() else 255.0
    scale = 65535.0 if largest > 255 else scale
    return np.clip(values / max(scale, largest) * 255, 0, 255).round().astype(np.uint8)
