"""foveal: the workbench for attention in vision."""

__version__ = "0.1.0"
