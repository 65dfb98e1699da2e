"""Where the time of a training goes: the loop says what it begins, a clock notes when.

A step is ``data`` (waiting for its batch), then ``forward``, ``backward`` and ``optimizer`` for each of its parts and
turns, ``average`` where there is one, and ``rest``: bookkeeping, the watch, and finding out whether the loss is a
number. ``setup`` comes before the first step, ``evaluate`` and ``checkpoint`` (metrics written down too) between steps.
"""

from __future__ import annotations

from typing import Literal, Protocol

Phase = Literal["setup", "data", "forward", "backward", "optimizer", "average", "rest", "evaluate", "checkpoint"]


class Clock(Protocol):
    """Told when a phase begins; the one before has then ended."""

    def begin(self, phase: Phase) -> None:
        """A phase begins now."""


class NoClock:
    """Counts nothing."""

    def begin(self, phase: Phase) -> None: ...
