"""What a generator is given: codes from N(0, 1) and classes, from numbers that say for what.

Training draws a whole step at once, so the number of processes and parts changes nothing; samples are drawn one by one,
so sample n of a seed is the same however many are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foveal.data.samples import mix

TURNS = ("discriminator", "generator")
"""The models that learn, in the order of their turns."""
TRAINING, SAMPLES = 11, 13  # what the numbers are for, so that no two draws are the same


def training_draw(moment: Sequence[int], turn: str, batch: int, latent: int, classes: int) -> tuple[Tensor, Tensor]:
    """Codes ``(batch, latent)`` and classes ``(batch,)``, uniform, of one turn of a step; zeros without classes.

    Args:
        moment: seed, epoch and step.
        turn: ``"discriminator"`` or ``"generator"``.
        batch: of all processes and parts together.
        latent: length of a code.
        classes: of the generator.
    """
    draw = torch.Generator().manual_seed(mix(*moment, TURNS.index(turn), TRAINING))
    codes = torch.randn(batch, latent, generator=draw)
    return codes, torch.randint(max(1, classes), (batch,), generator=draw)


def sample_draw(seed: int, numbers: Sequence[int], latent: int, classes: int) -> tuple[Tensor, Tensor]:
    """Codes and classes of the samples of these numbers; sample n is of class n modulo the number of classes."""
    codes = torch.empty(len(numbers), latent)
    for row, number in enumerate(numbers):
        codes[row] = torch.randn(latent, generator=torch.Generator().manual_seed(mix(seed, number, SAMPLES)))
    return codes, torch.tensor([number % max(1, classes) for number in numbers], dtype=torch.long)
