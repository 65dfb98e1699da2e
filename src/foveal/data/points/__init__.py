"""Clouds of points: published sets in their layouts, sets that foveal makes itself, and single files."""
