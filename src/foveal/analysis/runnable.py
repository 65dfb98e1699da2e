"""What of a model runs for a count, and on which tensors.

A model that takes anything but one map says so itself: its method ``example_inputs(batch, size)`` gives the tensors
that its forward takes, of its own size where ``size`` is None. Detectors and pairs of networks have no forward that
tensors without contents could go through; what stands for them has the same parameters, under the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.ssd import SSD

from foveal.graft.trace import evaluating
from foveal.models.gan import GAN

Shape = tuple[int, ...]


def runnable(model: nn.Module) -> nn.Module:
    """The model, or what stands for it."""
    if isinstance(model, (GeneralizedRCNN, RetinaNet, FCOS, SSD)):
        return Detector(model)
    return GeneratorAndDiscriminator(model) if isinstance(model, GAN) else model


def says_inputs(model: nn.Module) -> Callable[[int, Shape | None], tuple[Tensor, ...]] | None:
    """The model's ``example_inputs``, where it has one."""
    found = getattr(model, "example_inputs", None)
    return found if callable(found) else None


def inputs_of(model: nn.Module, batch: int, channels: int, size: Shape) -> tuple[Tensor, ...]:
    """What to feed, on the meta device: what the model says, or one map."""
    says = says_inputs(model)
    with torch.device("meta"):
        return (torch.empty(batch, channels, *size),) if says is None else tuple(says(batch, size or None))


def assumed(model: nn.Module, inputs: Sequence[Tensor], train: bool = False) -> tuple[str, ...]:
    """What was taken for granted to run at all; empty for a model that runs as it is."""
    if isinstance(model, Detector):
        return model.assumed(inputs[0].shape, train)
    paired = isinstance(model, GeneratorAndDiscriminator)
    return ("the discriminator sees what the generator draws",) if paired else ()


class GeneratorAndDiscriminator(nn.Module):
    """Both networks of a GAN, one after the other, as a step of the generator runs them."""

    def __init__(self, gan: GAN) -> None:
        super().__init__()
        self.generator, self.discriminator = gan.generator, gan.discriminator

    def example_inputs(self, batch: int = 1, size: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        return self.generator.example_inputs(batch, size)

    def forward(self, codes: Tensor, labels: Tensor | None = None) -> Any:
        return self.discriminator(self.generator(codes, labels), labels)


class Detector(nn.Module):
    """A detector of torchvision with as many proposals and objects as it keeps at most.

    How many there are depends on values. What chooses among them multiplies no matrices and is left out, its memory
    with it: anchors, suppression of overlaps, losses, pasting of masks. Of cutting out of maps the result is there.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        for name, part in detector.named_children():
            self.add_module(name, part)

    def example_inputs(self, batch: int = 1, size: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """Images that are not resized, where no size is asked for."""
        kept: Any = self.transform
        own = kept.fixed_size[::-1] if kept.fixed_size else (kept.min_size[-1],) * 2
        return (torch.empty(batch, len(kept.image_mean), *(size or own)),)

    def forward(self, images: Tensor) -> list[Any]:
        parts: Any = self
        maps = parts.backbone(self._resized(images))
        levels = [maps] if isinstance(maps, Tensor) else list(maps.values())
        if not hasattr(self, "rpn"):
            return [parts.head(levels)]
        heads, (proposals, objects) = parts.roi_heads, self._kept(self.training)
        boxes = heads.box_head(self._cut(heads.box_roi_pool, levels, len(images) * proposals))
        found = [*parts.rpn.head(levels), heads.box_predictor(boxes)]
        for kind in ("mask", "keypoint"):
            if getattr(heads, f"{kind}_roi_pool", None) is not None:
                cut = self._cut(getattr(heads, f"{kind}_roi_pool"), levels, len(images) * objects)
                found.append(getattr(heads, f"{kind}_predictor")(getattr(heads, f"{kind}_head")(cut)))
        return found

    def _resized(self, images: Tensor) -> Tensor:
        kept: Any = self.transform
        # In training one of several sizes is drawn.
        with evaluating(kept):
            resized: Tensor = kept(list(images))[0].tensors
        return resized

    def _cut(self, pool: Any, levels: list[Tensor], count: int) -> Tensor:
        cut = levels[0].new_zeros(count, levels[0].shape[1], *pool.output_size)
        return cut.requires_grad_(self.training and torch.is_grad_enabled())

    def _kept(self, train: bool) -> tuple[int, int]:
        """Proposals and objects of one image, at most."""
        parts: Any = self
        if not train:
            with evaluating(parts.rpn):
                return parts.rpn.post_nms_top_n(), parts.roi_heads.detections_per_img
        drawn = parts.roi_heads.fg_bg_sampler
        return drawn.batch_size_per_image, int(drawn.batch_size_per_image * drawn.positive_fraction)

    def assumed(self, shape: Sequence[int], train: bool) -> tuple[str, ...]:
        """In words, for images of this shape."""
        rows, columns = self._resized(torch.empty(*shape, device="meta")).shape[2:]
        told = [f"images resized to {rows} x {columns}"]
        if hasattr(self, "rpn"):
            proposals, objects = self._kept(train)
            told.append(f"{proposals:,} proposals and {objects:,} objects an image, the most it keeps")
        left_out = "matching with targets and the losses are" if train else "the choice among boxes is"
        return (*told, f"{left_out} left out, memory too")
