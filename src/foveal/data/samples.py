"""What a training loop reads: items by their index, which training draws anew for each epoch of each seed.

What is drawn for an item follows from (seed, epoch, index) alone, so an epoch that was cut off goes on with the same
items whatever the number of workers and processes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def mix(*numbers: int) -> int:
    """One seed from several numbers, different for different ones."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = ((state ^ (number + 0x7F4A7C15)) * 0xBF58476D1CE4E5B9) % 2**64
        state ^= state >> 31
    return state % 2**63


class Samples(ABC):
    """Items of one split; ``at`` says which epoch of which seed the next ones are drawn for."""

    decodes = False
    """Whether reading an item is work enough for worker processes."""
    seed = 0
    epoch = 0

    def at(self, seed: int, epoch: int) -> None:
        """Draw from now on for this epoch."""
        self.seed, self.epoch = seed, epoch

    @abstractmethod
    def __len__(self) -> int: ...

    def order(self, seed: int, epoch: int) -> Tensor:
        """Every index once, int64 ``(len(self),)``, in the order in which this epoch trains on them."""
        return torch.randperm(len(self), generator=torch.Generator().manual_seed(mix(seed, epoch)))

    @abstractmethod
    def batch(self, indices: Sequence[int]) -> Any:
        """The items of these indices together: tensors in tuples, lists and dictionaries."""
