"""What of a detector runs on maps alone, the same for every image of a size: for counting and for measuring."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet


class Trunk(nn.Module):
    """Backbone, pyramid, and the heads that slide over its levels: those of RetinaNet, or of the proposals.

    ``(batch, 3, rows, columns)`` to the outputs of the heads. Its parameters are all of the detector's; what a Faster
    or Mask R-CNN does with each of its proposals is not run.
    """

    def __init__(self, detector: FasterRCNN | RetinaNet) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = list(self.detector.backbone(x).values())
        if isinstance(self.detector, RetinaNet):
            return list(self.detector.head(maps).values())
        objectness, boxes = cast(nn.Module, self.detector.rpn.head)(maps)
        return [*objectness, *boxes]
