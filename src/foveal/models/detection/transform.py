"""torchvision's image transform, which can leave a mask in its box instead of pasting it into an image of zeros.

Pasted, the masks of 100 objects are 100 images of floats: 9.6 GB for a photograph of 24 million pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes


class Transform(GeneralizedRCNNTransform):  # type: ignore[misc]
    """The same but for ``pastes``: whether a mask is given ``(1, rows, columns)`` of the image, or of its box alone."""

    pastes = True

    @classmethod
    def of(cls, made: Any) -> Transform:
        """With the options of torchvision's."""
        return cls(made.min_size, made.max_size, made.image_mean, made.image_std, made.size_divisible, made.fixed_size)

    def postprocess(
        self,
        result: list[dict[str, Tensor]],
        image_shapes: list[tuple[int, int]],
        original_image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        if self.training or self.pastes:
            pasted: list[dict[str, Tensor]] = super().postprocess(result, image_shapes, original_image_sizes)
            return pasted
        for found, now, before in zip(result, image_shapes, original_image_sizes, strict=True):
            found["boxes"] = resize_boxes(found["boxes"], now, before)
        return result


@contextmanager
def masks_in_boxes(model: nn.Module) -> Iterator[None]:
    """Within this a detector gives each mask as its head made it, ``(n, 1, 28, 28)`` for its box."""
    own = [module for module in model.modules() if isinstance(module, Transform)]
    for module in own:
        module.pastes = False
    try:
        yield
    finally:
        for module in own:
            module.pastes = True


def pasted(mask: Tensor, box: Tensor, rows: int, columns: int) -> Tensor:
    """One mask ``(1, m, m)`` of a box in its image: ``(rows, columns)``, from 0 to 1."""
    image: Tensor = paste_masks_in_image(mask[None], box[None], (rows, columns))[0, 0]
    return image
