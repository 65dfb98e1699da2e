"""Answers averaged over scaled copies of a cloud.

The copies depend on (vote, index of the cloud) alone, so the same clouds give the same answers in any batch and number
of processes. Departure from the code that made this known: it repeats the vote and keeps the best of all repetitions,
which looks at the labels; here it is taken once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from foveal.data.samples import mix
from foveal.tasks.points.recipe import Voting


def voted(answer: Callable[[Tensor], Tensor], points: Tensor, indices: Sequence[int], voting: Voting) -> Tensor:
    """Mean probabilities over all votes, float32.

    Args:
        answer: clouds to logits, classes or parts on axis 1.
        points: ``(b, channels, n)``.
        indices: of the clouds in their set, ``b`` of them.
        voting: how many votes, and how clouds are scaled for all but the first.
    """
    total = answer(points).float().softmax(1)
    for vote in range(1, voting.votes):
        scale = torch.stack([scale_of(vote, index, voting) for index in indices])
        total = total + answer(scaled(points, scale.to(points))).float().softmax(1)
    return total / voting.votes


def scale_of(vote: int, index: int, voting: Voting) -> Tensor:
    """The factor ``(3,)`` of each axis."""
    low, high = voting.scale
    return low + (high - low) * torch.rand(3, generator=torch.Generator().manual_seed(mix(vote, index)))


def scaled(points: Tensor, scale: Tensor) -> Tensor:
    """Clouds ``(b, channels, n)`` stretched along their axes by ``(b, 3)``, their normals with them."""
    xyz = points[:, :3] * scale[:, :, None]
    if points.shape[1] == 3:
        return xyz
    return torch.cat((xyz, torch.nn.functional.normalize(points[:, 3:] / scale[:, :, None], dim=1)), 1)
