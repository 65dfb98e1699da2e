"""Semantic segmentation: EANet."""

from foveal.models.segmentation.eanet import EANet, eanet

__all__ = ["EANet", "eanet"]
