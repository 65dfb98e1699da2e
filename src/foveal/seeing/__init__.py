"""What attention looks at: maps of every layer of a model, from one ordinary forward, at the image's resolution."""

from foveal.seeing.capture import capture
from foveal.seeing.captured import Captured
from foveal.seeing.grid import Grid
from foveal.seeing.maps import Maps

__all__ = ["Captured", "Grid", "Maps", "capture"]
