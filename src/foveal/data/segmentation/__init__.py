"""Images with a class for every pixel, in the layouts of the published sets."""
