"""The Inception Score of probabilities that come batch by batch.

Paper: Salimans et al., Improved Techniques for Training GANs (2016), arXiv:1606.03498, section 4: exp of the mean
divergence of p(y | x) from p(y), averaged over parts of the samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foveal.errors import OptionError, ShapeError


class InceptionScore:
    """Sums over ``splits`` equal parts of ``count`` samples, in float64; sample i belongs to part i * splits // count.

    Raises:
        OptionError: there are more parts than samples.
    """

    def __init__(self, count: int, classes: int, splits: int = 1) -> None:
        if not 1 <= splits <= count:
            raise OptionError(
                f"InceptionScore: splits must be 1 to the {count} samples, got {splits}. Use fewer, or more samples."
            )
        self.count, self.splits = count, splits
        self.probabilities = torch.zeros(splits, classes, dtype=torch.float64)
        self.negentropies = torch.zeros(splits, dtype=torch.float64)
        self.samples = torch.zeros(splits, dtype=torch.float64)

    def add(self, probabilities: Tensor, numbers: Tensor) -> None:
        """Take in ``(n, classes)`` probabilities of the samples ``(n,)`` of these numbers, 0 to ``count - 1``."""
        if probabilities.dim() != 2 or probabilities.shape[1] != self.probabilities.shape[1]:
            raise ShapeError(
                f"InceptionScore: probabilities must be (n, {self.probabilities.shape[1]}), got "
                f"{tuple(probabilities.shape)}."
            )
        wide, part = probabilities.double().cpu(), numbers.cpu() * self.splits // self.count
        self.probabilities.index_add_(0, part, wide)
        self.negentropies.index_add_(0, part, wide.xlogy(wide).sum(1))
        self.samples.index_add_(0, part, torch.ones(len(wide), dtype=torch.float64))

    @classmethod
    def summed(cls, parts: Sequence[InceptionScore]) -> InceptionScore:
        """Of the samples of all parts, in their order."""
        first, *rest = parts
        whole = cls(first.count, first.probabilities.shape[1], first.splits)
        for part in (first, *rest):
            whole.probabilities += part.probabilities
            whole.negentropies += part.negentropies
            whole.samples += part.samples
        return whole

    def value(self) -> float:
        """1 to the number of classes; NaN before each part has a sample."""
        mean = self.probabilities / self.samples[:, None]
        divergence = self.negentropies / self.samples - mean.xlogy(mean).sum(1)
        return float(divergence.exp().mean())
