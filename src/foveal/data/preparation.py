"""How an image becomes what a model takes outside training: plain values, so a trained model can keep them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from foveal.data.options import Interpolation
from foveal.errors import DataError, OptionError

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LONGEST = 8  # sides of a longer picture are cut first: resizing 1 x 100,000 pixels to 256 rows would fill the memory


@dataclass(frozen=True)
class Normalisation:
    """Values of 0 to 1 less ``mean``, over ``std``; one of each for every channel. The size stays."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __call__(self, pictures: Tensor) -> Tensor:
        """``(..., channels, rows, columns)`` in 0 to 1; the mean colour becomes zeros."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pictures - mean).div_(std)

    def of(self, image: Any) -> Tensor:
        """An RGB image, of Pillow or ``(rows, columns, 3)`` of 8 bits, as ``(3, rows, columns)``."""
        return self(as_bytes(image).float().div_(255)).contiguous()

    def record(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"mean": list(self.mean), "std": list(self.std)}


def as_bytes(image: Any) -> Tensor:
    """An RGB image as it is: ``(3, rows, columns)`` of 8 bits."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@dataclass(frozen=True)
class Preparation:
    """Resize the shorter side to ``size / crop_share``, take the middle square, normalise.

    Args:
        size: height and width of the result in pixels.
        crop_share: share of the resized image's side that is kept, above 0 up to 1.
        interpolation: nearest, bilinear or bicubic; all but nearest with antialiasing.
        mean: of each channel, in values of 0 to 1.
        std: of each channel.
        channels: 1 (grey) or 3 (RGB).

    Raises:
        OptionError: a value is out of range.
    """

    size: int
    crop_share: float
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 < self.crop_share <= 1:
            raise OptionError(
                f"load: crop_share must be above 0 and at most 1 and size at least 1, got {self.crop_share} and "
                f"{self.size}. Use 0.875 and 224, say."
            )
        if self.interpolation not in ("nearest", "bilinear", "bicubic"):
            raise OptionError(
                f"load: there is no interpolation {self.interpolation!r}. Use nearest, bilinear or bicubic."
            )
        if self.channels not in (1, 3) or len(self.mean) != self.channels or len(self.std) != self.channels:
            raise OptionError(
                f"load: 1 or 3 channels with a mean and a std each are wanted, got {self.channels} with "
                f"{len(self.mean)} and {len(self.std)}. Give one of each for every channel."
            )

    def __call__(self, image: Image) -> Tensor:
        """A PIL image of any mode and size as ``(channels, size, size)``, float32, normalised."""
        return self.normalised(self.picture(image))

    def picture(self, image: Image) -> Tensor:
        """The same in 0 to 1, as a person would see it."""
        from foveal.data.picture import rgb

        return self.tensor(self.middle(rgb(image)))

    def middle(self, image: Image) -> Image:
        """The middle square of an RGB image, resized."""
        kept: Image = _middle(self)(cut(image))
        return kept

    def tensor(self, image: Image) -> Tensor:
        """An RGB image as it is: ``(channels, height, width)`` in 0 to 1."""
        from torchvision.transforms.v2 import functional

        pixels: Tensor = functional.pil_to_tensor(image if self.channels == 3 else image.convert("L"))
        return pixels.float().div_(255)

    def normalised(self, pictures: Tensor) -> Tensor:
        """``(..., channels, height, width)`` in 0 to 1, less the mean, over the deviation."""
        return Normalisation(self.mean, self.std)(pictures)

    def record(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Preparation:
        """What ``record`` wrote.

        Raises:
            DataError: a value is missing or none of these.
        """
        wanted = {entry.name for entry in fields(cls)}
        if set(record) != wanted:
            raise DataError(
                f"Preparation: {', '.join(sorted(wanted))} are wanted, got {', '.join(sorted(record)) or 'nothing'}. "
                "Give what Preparation.record() wrote."
            )
        return cls(**{**record, "mean": tuple(record["mean"]), "std": tuple(record["std"])})


@lru_cache(maxsize=16)
def _middle(preparation: Preparation) -> Callable[[Any], Any]:
    from torchvision.transforms import v2

    mode = v2.InterpolationMode(preparation.interpolation)
    resized = round(preparation.size / preparation.crop_share)
    return v2.Compose([v2.Resize(resized, interpolation=mode), v2.CenterCrop(preparation.size)])


def cut(image: Image) -> Image:
    """The middle of an image that is more than ``LONGEST`` times as long as wide, else the image."""
    short, long = sorted(image.size)
    if long <= LONGEST * short:
        return image
    keep = tuple(min(side, LONGEST * short) for side in image.size)
    left, top = (math.floor((side - kept) / 2) for side, kept in zip(image.size, keep, strict=True))
    return image.crop((left, top, left + keep[0], top + keep[1]))
