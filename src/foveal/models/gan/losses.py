"""The hinge losses of adversarial training, over the discriminator's scores.

Papers: Lim and Ye, Geometric GAN (2017); Miyato et al., Spectral Normalization for GANs (2018), equations 16 and 17.
"""

from __future__ import annotations

from torch import Tensor

from foveal.errors import ShapeError


def discriminator_hinge(real: Tensor, fake: Tensor) -> Tensor:
    """mean max(0, 1 - real) + mean max(0, 1 + fake), over scores of any shape, float32 at least."""
    _check(real=real, fake=fake)
    return _wide(1 - real).relu().mean() + _wide(1 + fake).relu().mean()


def generator_hinge(fake: Tensor) -> Tensor:
    """-mean fake: the generator raises the scores without a bound."""
    _check(fake=fake)
    return -_wide(fake).mean()


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.itemsize < 4 else x


def _check(**scores: Tensor) -> None:
    for name, score in scores.items():
        if score.numel() == 0:
            raise ShapeError(f"hinge loss: {name} must have a score at least, got {tuple(score.shape)}.")
