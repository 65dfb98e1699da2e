"""What training draws from an image and its labels: a scale, a window, a mirror, colours; a function of a seed alone.

Both are resized and cut in one step: only the pixels of the window are computed, and they are those of the whole image
resized. The image by linear interpolation, wider where it shrinks; labels by the nearest.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from foveal.data.preparation import Normalisation
from foveal.data.segmentation.labels import IGNORE, Labels
from foveal.data.segmentation.options import SegmentationAugmentation
from foveal.errors import OptionError

if TYPE_CHECKING:
    from PIL.Image import Image

BLUR = (0.15, 1.15)  # pixels


class Draw:
    """Draws what a model is trained on.

    Raises:
        OptionError: an option is out of range.
    """

    def __init__(self, options: SegmentationAugmentation, normalisation: Normalisation) -> None:
        check(options)
        self.options, self.normalisation = options, normalisation

    def __call__(self, image: Image, labels: Labels, seed: int) -> tuple[Tensor, Tensor]:
        """An RGB image and its labels as ``(3, *crop)``, normalised, and ``(*crop)``, 8 bits; the same for a seed."""
        chance = random.Random(seed)
        image, marked = self._window(image, labels, chance)
        image = self._coloured(image, chance)
        x, y = self.normalisation.of(image), torch.from_numpy(np.array(marked))
        if chance.random() < self.options.flip:
            x, y = x.flip(-1), y.flip(-1)
        rows, columns = (wanted - got for wanted, got in zip(self.options.crop, y.shape, strict=True))
        # The mean colour is zero once it is taken away.
        return pad(x, (0, columns, 0, rows)), pad(y, (0, columns, 0, rows), value=IGNORE)

    def _window(self, image: Image, labels: Labels, chance: random.Random) -> tuple[Image, Image]:
        from PIL import Image as Pillow

        factor = scale_factor(self.options, chance)
        whole = [max(1, round(side * factor)) for side in labels.shape]
        kept = [min(side, most) for side, most in zip(whole, self.options.crop, strict=True)]
        first = [chance.randint(0, side - cut) for side, cut in zip(whole, kept, strict=True)]
        top, left, bottom, right = (
            min(place * have / side, have)
            for places in (first, [a + b for a, b in zip(first, kept, strict=True)])
            for place, side, have in zip(places, whole, labels.shape, strict=True)
        )
        size, box = (kept[1], kept[0]), (left, top, right, bottom)
        marked = Pillow.fromarray(labels).resize(size, Pillow.Resampling.NEAREST, box)
        return image.resize(size, Pillow.Resampling.BILINEAR, box), marked

    def _coloured(self, image: Image, chance: random.Random) -> Image:
        from PIL import ImageEnhance, ImageFilter

        jitter = self.options.color_jitter
        if jitter:
            for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                image = kind(image).enhance(chance.uniform(max(0.0, 1 - jitter), 1 + jitter))
        if self.options.blur and chance.random() < self.options.blur:
            image = image.filter(ImageFilter.GaussianBlur(chance.uniform(*BLUR)))
        return image


def scale_factor(options: SegmentationAugmentation, chance: random.Random) -> float:
    """One of the factors from the least on, a step apart; any where the step is 0."""
    least, most = options.scale
    if options.scale_step == 0:
        return chance.uniform(least, most)
    steps = int((most - least) / options.scale_step + 1e-6)
    return least + options.scale_step * chance.randint(0, steps)


def check(options: SegmentationAugmentation) -> None:
    """Raise OptionError for what is out of range."""
    name = "train: --data.augmentation."
    if min(options.crop) < 1 or max(options.crop) > 2**14:
        raise OptionError(f"{name}crop must be rows and columns of 1 to {2**14}, got {options.crop}. Use 513 513, say.")
    if not 0 < options.scale[0] <= options.scale[1] <= 100:
        raise OptionError(f"{name}scale must rise from above 0 to at most 100, got {options.scale}. Use 0.5 2.0, say.")
    if not options.scale_step >= 0:
        raise OptionError(f"{name}scale_step must be at least 0, got {options.scale_step}. Use 0.1, say.")
    reach = options.scale[1] - options.scale[0]
    if 0 < reach < options.scale_step:
        # None but the least would ever be drawn.
        raise OptionError(
            f"{name}scale_step must be at most {reach:g}, from the least scale to the largest, got "
            f"{options.scale_step:g}. Use 0.1, say, or one scale."
        )
    for word in ("flip", "color_jitter", "blur"):
        value = getattr(options, word)
        if not 0 <= value <= 1:
            raise OptionError(f"{name}{word} must be from 0 to 1, got {value}. Use 0.5, say.")
