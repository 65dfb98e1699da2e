"""A class for every pixel: recipe, training, scores over scales and windows, mean IoU, answers for new images."""
