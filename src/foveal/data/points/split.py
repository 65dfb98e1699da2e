"""One side of a set of clouds as training and validation read it: so many points of each, drawn anew each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from foveal.data.points.augmentation import augmented, taken, unit_sphere
from foveal.data.points.clouds import Clouds
from foveal.data.points.options import PointOptions
from foveal.data.samples import Samples, mix


class PointSplit(Samples):
    """Clouds of ``options.points`` points.

    A batch is a dictionary: ``points (b, channels, n)`` float32, ``labels (b,)`` int64, and where parts are known
    ``parts (b, n)`` int64 and ``counts (b,)``, how many points from the first on are no repetitions (in validation;
    in training all of them count).

    Args:
        clouds: what is read.
        options: of the set.
        trained: draw and augment as training does.
        normalise: put each cloud into the unit sphere.
    """

    def __init__(self, clouds: Clouds, options: PointOptions, *, trained: bool, normalise: bool) -> None:
        self.clouds, self.options, self.trained, self.normalise = clouds, options, trained, normalise
        self.decodes = clouds.slow

    @property
    def labels(self) -> list[int]:
        """Class or category of each cloud."""
        labels: list[int] = self.clouds.labels.tolist()
        return labels

    def __len__(self) -> int:
        return len(self.clouds)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        options, count = self.options, self.options.points
        random = self.trained and options.subset == "random"
        # A seed of its own for each item, whatever was drawn before.
        generator = Generator().manual_seed(mix(self.seed, self.epoch, index)) if self.trained else None
        cloud = self.clouds.read(index, None if random else count)
        chosen = taken(len(cloud.points), count, generator=generator, random=random)
        points = torch.from_numpy(cloud.points)[chosen]
        if self.normalise:
            points = unit_sphere(points)
        points = points.float()
        if generator is not None:
            points, moved = augmented(points, options.augmentation, generator)
            chosen = chosen[moved]
        item = {"points": points.mT.contiguous(), "labels": torch.tensor(int(self.clouds.labels[index]))}
        if cloud.parts is not None:
            item["parts"] = torch.from_numpy(cloud.parts)[chosen]
            item["counts"] = torch.tensor(count if self.trained else min(count, len(cloud.points)))
        return item

    def batch(self, indices: Sequence[int]) -> dict[str, Any]:
        items = [self[index] for index in indices]
        return {name: torch.stack([item[name] for item in items]) for name in items[0]}
