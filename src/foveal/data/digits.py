"""1,797 real handwritten digits of 8x8 pixels that scikit-learn ships (UCI, optical recognition of digits)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from foveal.data.images import ImageData, TensorSplit, plain

EVERY = 5  # of each class every fifth image, in the order of the file, is validation


def sources() -> tuple[Tensor, Tensor, Tensor]:
    """``images (n, 1, 8, 8)`` in 0 to 1, ``labels (n,)``, and ``held_out (n,)``: whether an image is for validation."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = torch.from_numpy(raw.images).float().unsqueeze(1) / 16
    labels = torch.from_numpy(raw.target).long()
    rank = (labels[:, None] == labels).tril().sum(1) - 1
    return images, labels, rank % EVERY == EVERY - 1


def digits(size: int) -> ImageData:
    """The digits at ``size`` pixels, 1,440 to train on and 357 held out."""
    images, labels, held_out = sources()
    if size != images.shape[-1]:
        images = interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    return ImageData(
        name="digits",
        classes=tuple("0123456789"),
        channels=1,
        size=size,
        train=TensorSplit(images[~held_out], labels[~held_out], shift=max(1, size // 12)),
        val=TensorSplit(images[held_out], labels[held_out]),
        preparation=plain(size, 1),
        backbone="foveal_resnet_mini",
        fingerprint=f"digits-1797-every-{EVERY}",
    )
