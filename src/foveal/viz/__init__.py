"""Draws records, computes nothing."""

from foveal.viz.overlay import overlay, png
from foveal.viz.report import write_report

__all__ = ["overlay", "png", "write_report"]
