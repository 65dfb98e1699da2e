"""Stereo: PSMNet, its cost volume, and padding to the sizes that it takes."""

from foveal.models.stereo.padding import crop_to, pad_to
from foveal.models.stereo.psmnet import PSMNet, psmnet
from foveal.models.stereo.volume import cost_volume, volume_conv

__all__ = ["PSMNet", "cost_volume", "crop_to", "pad_to", "psmnet", "volume_conv"]
