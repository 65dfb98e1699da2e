"""How well classes and parts are told.

Paper: Qi et al., PointNet (2017), section 5.1, and the evaluation of its authors' code. Departures: none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def part_answers(logits: Tensor, categories: Tensor, allowed: Tensor) -> Tensor:
    """The most probable part of each point among those of its cloud's category: ``(b, n)``.

    Args:
        logits: ``(b, parts, n)``.
        categories: ``(b,)``.
        allowed: ``(categories, parts)``, true for a category's parts.
    """
    # A part of the category wins even where all of them have probability 0, as the logarithm of votes may tell.
    finite = logits.clamp_min(torch.finfo(logits.dtype).min)
    return finite.masked_fill(~allowed[categories][:, :, None], -torch.inf).argmax(1)


def shape_ious(answers: Tensor, parts: Tensor, categories: Tensor, allowed: Tensor, counts: Tensor) -> Tensor:
    """Mean intersection over union of each cloud, over the parts of its category: ``(b,)`` float64 on the CPU.

    A part that is neither there nor answered counts 1.

    Args:
        answers: ``(b, n)``.
        parts: ``(b, n)``.
        categories: ``(b,)``.
        allowed: ``(categories, parts)``.
        counts: ``(b,)``, points of each cloud that count, from the first on.
    """
    numbers = torch.arange(allowed.shape[1], device=answers.device)[:, None]
    counted = torch.arange(answers.shape[1], device=answers.device) < counts[:, None]
    told = (answers[:, None] == numbers) & counted[:, None]
    true = (parts[:, None] == numbers) & counted[:, None]
    # On the CPU, since not every device has float64.
    both, either = ((told & true).sum(2).cpu().double(), (told | true).sum(2).cpu().double())
    iou = torch.where(either > 0, both / either.clamp_min(1), 1.0)
    own = allowed[categories].cpu()
    return (iou * own).sum(1) / own.sum(1)


def allowed_parts(parts: Mapping[str, Sequence[int]], classes: Sequence[str], count: int) -> Tensor:
    """``(categories, parts)``, true where a part belongs to a category."""
    table = torch.zeros(len(classes), count, dtype=torch.bool)
    for row, name in enumerate(classes):
        table[row, list(parts[name])] = True
    return table
