"""Images by name: digits, digit-pairs, or a folder with one folder a class."""

from foveal.data.catalog import NAMES, load
from foveal.data.images import ImageData, Split

__all__ = ["NAMES", "ImageData", "Split", "load"]
