"""Words in pictures, in a font that has their letters.

Pillow's own font has little beyond ASCII. Words with other letters take the first font of this machine that has them
all; where there is none they lose their accents, and what no font has is drawn as an empty box.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from unicodedata import combining, normalize

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc", "msyh.ttc",
)  # fmt: skip
"""Files that Pillow looks for where the system keeps its fonts."""
OWN = ""
_NO_LETTER = "\uffff"


def lettered(text: str, size: float) -> tuple[str, FreeTypeFont | ImageFont]:
    """Words as they can be drawn, and the font of that size in pixels that draws them."""
    text = normalize("NFC", text)
    for name in (OWN, *FONTS):
        if all(_has(name, letter) for letter in set(text)):
            return text, _font(name, size) or _own(size)
    plain = normalize("NFKD", text.replace("ß", "ss"))
    return "".join(letter for letter in plain if not combining(letter)), _own(size)


@lru_cache(maxsize=4096)
def _has(name: str, letter: str) -> bool:
    if letter.isascii():
        return name == OWN or _font(name, 16) is not None
    font = _font(name, 16)
    return font is not None and bytes(font.getmask(letter)) != bytes(font.getmask(_NO_LETTER))


@lru_cache(maxsize=64)
def _font(name: str, size: float) -> FreeTypeFont | ImageFont | None:
    from PIL import ImageFont

    if name == OWN:
        return _own(size)
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@lru_cache(maxsize=64)
def _own(size: float) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)
