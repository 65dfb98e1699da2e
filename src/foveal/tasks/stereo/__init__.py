"""Stereo: disparities of pairs of images, learned and measured."""
