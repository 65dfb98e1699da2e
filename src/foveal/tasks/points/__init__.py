"""Clouds of points: one class for each, or a part for each of their points."""
