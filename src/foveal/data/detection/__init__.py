"""Detection data: COCO's layout on disk, and scenes made in it."""
