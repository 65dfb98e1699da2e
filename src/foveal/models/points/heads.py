"""What is said about a cloud: one class for all of it, or a part for every point.

Paper: Guo et al., PCT: Point Cloud Transformer (2021), section 3; the layout of the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.errors import ShapeError
from foveal.layers.base import check_sizes
from foveal.layers.pointwise import Pointwise, pointwise
from foveal.models.labels import check_labels
from foveal.models.points.trunk import PointTrunk, Projection


class PointClassifier(nn.Module):
    """Clouds ``(batch, in_chans, n)`` to ``(batch, num_classes)``: greatest features, then three linear maps.

    Args:
        trunk: features of the points.
        num_classes: 40 in ModelNet40.
        drop_rate: dropout after both hidden layers.
        slope: of the hidden activations below zero; 0 is ReLU.
    """

    def __init__(self, trunk: PointTrunk, *, num_classes: int, drop_rate: float, slope: float) -> None:
        super().__init__()
        check_sizes("PointClassifier", num_classes=num_classes)
        self.num_classes, self.trunk = num_classes, trunk
        self.head = nn.Sequential(
            Projection(trunk.width, 512, slope=slope),
            nn.Dropout(drop_rate),
            Projection(512, 256, bias=True, slope=slope),
            nn.Dropout(drop_rate),
            Pointwise(256, num_classes),
        )

    def example_inputs(self, batch: int = 1, size: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """Clouds of ``size`` points; of 1024, as in the papers, where it is None."""
        return (torch.empty(batch, self.trunk.in_chans, *(size or (1024,))),)

    def forward(self, points: Tensor) -> Tensor:
        features = self.trunk(points)
        _check_batch("PointClassifier", features, self.training)
        out: Tensor = self.head(features.max(2, keepdim=True).values)
        return out.squeeze(2)


class WithShared(Pointwise):
    """A linear map of each point's channels and of those that all points of its cloud share, in this order.

    What is shared goes through its columns once a cloud, not once a point.
    """

    def forward(self, x: Tensor, shared: Tensor | None = None) -> Tensor:
        """``(batch, in, n)`` and ``(batch, in of all points, 1)`` to ``(batch, out, n)``."""
        if shared is None:
            return super().forward(x)
        own, common = self.weight.tensor_split((x.shape[1],), 1)
        return pointwise(x, own) + pointwise(shared, common, self.bias)


class PartSegmenter(nn.Module):
    """Clouds ``(batch, in_chans, n)`` and their categories ``(batch,)`` to ``(batch, num_parts, n)``.

    Every point sees its own features, the greatest and the mean ones of the cloud, and the category.

    Args:
        trunk: features of the points, one for each of them.
        num_parts: 50 in ShapeNet-part, over all categories.
        num_categories: 16 in ShapeNet-part; 0 leaves the category out.
        drop_rate: dropout after the first hidden layer.
        hidden: channels of the two hidden layers.
    """

    def __init__(
        self,
        trunk: PointTrunk,
        *,
        num_parts: int,
        num_categories: int,
        drop_rate: float,
        hidden: tuple[int, int] = (512, 256),
    ) -> None:
        super().__init__()
        first, second = hidden
        check_sizes("PartSegmenter", num_parts=num_parts, first=first, second=second)
        self.num_parts, self.num_categories, self.trunk = num_parts, num_categories, trunk
        self.category = Projection(num_categories, 64, slope=0.2) if num_categories else None
        width = 3 * trunk.width + (64 if num_categories else 0)
        self.head = nn.Sequential(
            Projection(width, first, bias=True, linear=WithShared),
            nn.Dropout(drop_rate),
            Projection(first, second, bias=True),
            Pointwise(second, num_parts),
        )

    def example_inputs(self, batch: int = 1, size: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """Clouds of ``size`` points, of 2048 where it is None, and their categories where it takes them."""
        points = torch.empty(batch, self.trunk.in_chans, *(size or (2048,)))
        return (points, torch.zeros(batch, dtype=torch.long)) if self.num_categories else (points,)

    def forward(self, points: Tensor, categories: Tensor | None = None) -> Tensor:
        features = self.trunk(points)
        told = check_labels(
            "PartSegmenter", categories, batch=features.shape[0], classes=self.num_categories, name="categories",
            option="num_categories",
        )  # fmt: skip
        whole = [features.max(2, keepdim=True).values, features.mean(2, keepdim=True)]
        if self.category is not None and told is not None:
            _check_batch("PartSegmenter", features, self.training)
            one_hot = F.one_hot(told.long(), self.num_categories).to(features.dtype)
            whole.append(self.category(one_hot[:, :, None]))
        linear, norm, act = self.head[0].children()
        x: Tensor = act(norm(linear(features, torch.cat(whole, 1))))
        for layer in list(self.head)[1:]:
            x = layer(x)
        return x


def _check_batch(who: str, features: Tensor, training: bool) -> None:
    if training and features.shape[0] == 1:
        raise ShapeError(
            f"{who}: batch normalisation over whole clouds needs at least two of them in training, got one. "
            "Use a larger batch and drop the last one where it is smaller, or call .eval()."
        )
