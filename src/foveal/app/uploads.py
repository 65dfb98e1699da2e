"""Images that a browser sends: bytes in, a picture out, nothing of a client's ever taken for a path."""

from __future__ import annotations

import io
import threading
import warnings
from typing import Any

from foveal.data.picture import rgb
from foveal.errors import DataError

MOST_BYTES = 20_000_000
MOST_PIXELS = 40_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
# The largest image takes hundreds of MB while it is decoded; and the filters of warnings are those of the process.
_ONE_AT_A_TIME = threading.Lock()


def opened(body: bytes) -> Any:
    """An RGB image of PIL from the bytes of a file.

    Raises:
        DataError: too many bytes or pixels, or no image of a known format.
    """
    from PIL import Image, UnidentifiedImageError

    check_size(len(body))
    try:
        with _ONE_AT_A_TIME, warnings.catch_warnings():
            # Whatever is larger than the limit is refused below, from the header alone.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(body), formats=FORMATS) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise DataError(
                        f"explore: the image has {width} x {height} pixels, at most {MOST_PIXELS / 1e6:.0f} million "
                        "are taken. Make it smaller."
                    )
                return rgb(image)
    except DataError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"explore: the file is no image of a known format. Give {', '.join(FORMATS)}.") from error
    # Decoders raise nearly anything on damaged files: OSError, SyntaxError, struct.error, IndexError, MemoryError.
    except Exception as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"explore: the image is damaged: {told}. Give a whole file.") from error


def check_size(count: int) -> None:
    """Raise where a file has too many bytes, or none."""
    if count == 0:
        raise DataError("explore: the file is empty. Give an image.")
    if count > MOST_BYTES:
        raise DataError(
            f"explore: the file has {count / 1e6:.1f} MB, at most {MOST_BYTES / 1e6:.0f} MB are taken. Make it smaller."
        )
