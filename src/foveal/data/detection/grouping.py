"""An epoch's order in which the images of a step lie the same way, so that little of a batch is padding."""

from __future__ import annotations

import torch
from torch import Tensor


def grouped(order: Tensor, upright: Tensor, size: int, seed: int) -> Tensor:
    """An order of the same images: those of a step are all higher than wide, or none is, but in one step at most.

    An image keeps being in a step or left over at the end; steps come in an order of their own.

    Args:
        order: indices, each once, ``(n,)``.
        upright: whether an image is higher than wide, by its index.
        size: images of a step.
        seed: of the order of the steps.
    """
    end = len(order) // size * size
    taken = order[:end]
    own = [taken[upright[taken] == turn] for turn in (False, True)]
    full = [len(each) // size * size for each in own]
    # What fills no step of its kind is of one step together, or there is none.
    mixed = torch.cat([each[most:] for each, most in zip(own, full, strict=True)])
    steps = torch.cat([*(each[:most] for each, most in zip(own, full, strict=True)), mixed]).view(-1, size)
    shuffled = torch.randperm(len(steps), generator=torch.Generator().manual_seed(seed))
    return torch.cat([steps[shuffled].flatten(), order[end:]])
