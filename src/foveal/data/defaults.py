"""What a data set is made for: size, middle, normalisation, crop and flip, where the options say nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foveal.data.augmentation import Augment
from foveal.data.options import Augmentation, DataOptions
from foveal.data.preparation import IMAGENET_MEAN, IMAGENET_STD, Preparation


@dataclass(frozen=True)
class Defaults:
    """The values of one data set."""

    size: int
    crop_share: float
    own: Augmentation
    """Crop and flip; nothing else of it counts."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def preparation(self, options: DataOptions) -> Preparation:
        """What validation does with these options."""
        share = self.crop_share if options.crop_share is None else options.crop_share
        size = options.size or self.size
        return Preparation(size, share, options.interpolation, self.mean, self.std, len(self.mean))

    def augment(self, options: DataOptions) -> Augment:
        """What training does with these options."""
        wanted, own = options.augmentation, self.own
        if wanted.crop == "own":
            wanted = replace(
                wanted, crop=own.crop, scale=own.scale, ratio=own.ratio, padding=own.padding, flip=own.flip
            )
        return Augment(wanted, self.preparation(options))
