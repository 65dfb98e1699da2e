"""Stereo pairs with disparities: Scene Flow, KITTI 2012 and 2015, and a generated set."""
