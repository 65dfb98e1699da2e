"""Objects in images: recipe, training, average precision of boxes and masks, answers for new images."""
