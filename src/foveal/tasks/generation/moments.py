"""Means and covariances of features that come batch by batch, and the distance of two Gaussians that have them.

Papers: Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (2017),
arXiv:1706.08500, equation 6, with the closed form of Dowson and Landau (1982); sums as in Chan et al. (1979).
Symbols: n samples of d features, m their mean, s the sum of the outer products of what they differ from it by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.errors import DataError, ShapeError


@dataclass(frozen=True)
class Moments:
    """Of samples: how many, their mean ``(d,)`` and scatter ``(d, d)``, float64."""

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Of ``(n, d)`` features, taken in float64.

        Raises:
            ShapeError: they are no matrix with a row at least.
        """
        if features.dim() != 2 or not features.shape[0]:
            raise ShapeError(f"Moments: features must be (n, d) with n at least 1, got {tuple(features.shape)}.")
        wide = features.double()
        mean = wide.mean(0)
        apart = wide - mean
        return cls(len(wide), mean, apart.mT @ apart)

    def joined(self, other: Moments) -> Moments:
        """Of the samples of both."""
        count = self.count + other.count
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        scatter = self.scatter + other.scatter + apart.outer(apart) * (self.count * other.count / count)
        return Moments(count, mean, scatter)

    @property
    def covariance(self) -> Tensor:
        """``(d, d)``, over n - 1; zero for one sample."""
        return self.scatter / max(1, self.count - 1)


def joined(parts: Sequence[Moments]) -> Moments:
    """Of all samples of some parts, in their order."""
    first, *rest = parts
    for part in rest:
        first = first.joined(part)
    return first


def frechet_distance(one: Moments, other: Moments) -> float:
    """The squared Fréchet distance of two Gaussians: |m1 - m2|² + tr C1 + tr C2 - 2 tr (C1 C2)^½.

    The trace of the root is the sum of the singular values of C1^½ C2^½, which is exact to rounding for singular
    covariances too, of fewer samples than features, say, and never complex.

    Raises:
        ShapeError: they have not the same number of features.
        DataError: one has a value that is no number.
    """
    if one.mean.shape != other.mean.shape:
        raise ShapeError(
            f"frechet_distance: both must have as many features, got {len(one.mean)} and {len(other.mean)}."
        )
    if not all(bool(part.isfinite().all()) for each in (one, other) for part in (each.mean, each.scatter)):
        raise DataError("frechet_distance: features must be numbers, got NaN or infinity. Look at the images' weights.")
    apart = (one.mean - other.mean).square().sum()
    shared = torch.linalg.svdvals(_root(one.covariance).mT @ _root(other.covariance)).sum()
    distance = apart + one.covariance.trace() + other.covariance.trace() - 2 * shared
    return max(0.0, float(distance))


def _root(covariance: Tensor) -> Tensor:
    """R with R Rᵀ the covariance."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt()
