"""One colour a mechanism, the same in every figure, told apart by the colour-blind (after Okabe and Ito, and Tol)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Colour:
    """For light and for dark surroundings."""

    light: str
    dark: str


MECHANISMS = {
    "none": Colour("#6b7280", "#a3aab5"),
    "se": Colour("#8a8a2b", "#bcbc5c"),
    "eca": Colour("#882255", "#d06a9f"),
    "cbam": Colour("#3b2f8f", "#9a8ff0"),
    "nonlocal": Colour("#0072b2", "#3fa3e0"),
    "augmented": Colour("#56b4e9", "#8fd0f5"),
    "local": Colour("#009e73", "#2fc79b"),
    "efficient": Colour("#e69f00", "#f0b73a"),
    "external": Colour("#cc79a7", "#e2a0c4"),
    "explicit": Colour("#d55e00", "#f08030"),
}
_OTHERS = [Colour("#117733", "#4fbf77"), Colour("#aa4499", "#d07cc2"), Colour("#661100", "#c0705f")]


def colours_of(mechanisms: Iterable[str]) -> dict[str, Colour]:
    """Known names have their own colour; others take the spare ones in turn."""
    chosen: dict[str, Colour] = {}
    spare = 0
    for name in mechanisms:
        if name in MECHANISMS:
            chosen[name] = MECHANISMS[name]
        else:
            chosen[name] = _OTHERS[spare % len(_OTHERS)]
            spare += 1
    return chosen
