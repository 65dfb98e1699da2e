"""What an image is made of before a model takes it: its mean away, over its deviation. The size stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Normalisation:
    """Values of 0 to 1 less ``mean``, over ``std``; one of each for red, green and blue."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: Image) -> Tensor:
        """An RGB image as ``(3, rows, columns)``; the mean colour is zeros."""
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255)
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return pixels.sub_(mean).div_(std).contiguous()

    def record(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"mean": list(self.mean), "std": list(self.std)}
