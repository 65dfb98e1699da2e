"""Draws records, computes nothing."""

from foveal.viz.overlay import overlay, png
from foveal.viz.report import write_report
from foveal.viz.summary import write_summary_png

__all__ = ["overlay", "png", "write_report", "write_summary_png"]
