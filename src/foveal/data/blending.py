"""Mixup and cutmix of a batch, by timm, drawn from (seed, epoch, step) alone.

Departure from timm's trainer: an image is blended with its neighbour (first with second, third with fourth) and not
with its mirror in the batch. All are drawn in random order, so the distribution is the same, but the pairs stay
together when processes or accumulated parts share a batch, and the numbers do not depend on how many those are.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.data.augmentation import check, drawn_from
from foveal.data.options import Augmentation
from foveal.data.samples import mix


class Blend:
    """Blends the images of a batch in pairs, all by the same share or all with the same rectangle.

    mixup: Zhang et al. 2018, arXiv:1710.09412. cutmix: Yun et al. 2019, arXiv:1905.04899; the share of the labels is
    that of the pixels pasted, also where the border cuts the rectangle.

    Args:
        augmentation: its mixup, cutmix and switch are used.
        classes: how many there are.

    Raises:
        OptionError: an option is out of range.
    """

    def __init__(self, augmentation: Augmentation, classes: int) -> None:
        check(augmentation)
        self.augmentation, self.classes = augmentation, classes

    @property
    def blends(self) -> bool:
        """Whether anything is blended at all."""
        return self.augmentation.mixup > 0 or self.augmentation.cutmix > 0

    def __call__(self, images: Tensor, labels: Tensor, seed: int, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """New images and soft labels; the arguments stay as they are.

        Args:
            images: ``(n, channels, height, width)``; where n is odd, the last one is left alone.
            labels: classes ``(n,)``.
            seed: of the run.
            epoch: number of the epoch.
            step: number of the optimiser's step in it; parts of one step's batch give the same number.

        Returns:
            ``(n, channels, height, width)`` and ``(n, classes)`` float32 whose rows sum to 1.
        """
        hard = F.one_hot(labels, self.classes).float()
        pairs = len(images) // 2
        if not self.blends or pairs == 0:
            return images, hard
        # timm blends with the mirror in the batch: 0 2 4 5 3 1 has the neighbours in each other's mirror.
        even = torch.arange(0, 2 * pairs, 2, device=images.device)
        order = torch.cat([even, even.flip(0) + 1])
        with drawn_from(mix(seed, epoch, step, 3)):
            mixed, soft = self._mixup(images[order], labels[order])
        blended, targets = images.clone(), hard
        blended[order], targets[order] = mixed, soft.float()
        return blended, targets

    @cached_property
    def _mixup(self) -> Any:
        from timm.data.mixup import Mixup

        options = self.augmentation
        return Mixup(
            mixup_alpha=options.mixup,
            cutmix_alpha=options.cutmix,
            switch_prob=options.switch,
            label_smoothing=0.0,
            num_classes=self.classes,
        )
