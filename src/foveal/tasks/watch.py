"""Who is told how far a comparison is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from foveal.data import ImageData
    from foveal.tasks.settings import Settings


class Watch(Protocol):
    """A progress display, or anything else that wants to know."""

    def phase(self, name: str) -> None:
        """What is done now."""

    def begin(self, settings: Settings, data: ImageData, runs: int) -> None:
        """The runs begin."""

    def run(self, mechanism: str, seed: int, epochs: float, metrics: Mapping[str, float]) -> None:
        """A run has done so many epochs."""

    def finished(self, record: Mapping[str, Any]) -> None:
        """A run has its result."""


class Silent:
    """Tells nobody."""

    def phase(self, name: str) -> None: ...
    def begin(self, settings: Settings, data: ImageData, runs: int) -> None: ...
    def run(self, mechanism: str, seed: int, epochs: float, metrics: Mapping[str, float]) -> None: ...
    def finished(self, record: Mapping[str, Any]) -> None: ...
