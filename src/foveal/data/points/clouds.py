"""What a set of clouds is to the rest: clouds by their index, read when they are asked for, and two splits of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from foveal.data.samples import Samples
from foveal.errors import DataError

Floating = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]


class Cloud(NamedTuple):
    """One cloud: ``points (n, 3 or 6)``, coordinates before normals, and ``parts (n,)`` where they are known.

    The numbers are of the type of the file: places on a map lose their digits in float32 unless they are moved first.
    """

    points: Floating
    parts: Ints | None


class Clouds(ABC):
    """Clouds of one split in the order of their files.

    Attributes:
        names: of each cloud, as an error names it and ``skip`` leaves it out.
        labels: class or category of each.
    """

    names: Sequence[str]
    labels: Ints

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def read(self, index: int, most: int | None = None) -> Cloud:
        """A cloud from its file, of its first ``most`` points where that is enough.

        Raises:
            DataError: it cannot be read, or holds what is no number or no part; file and row are named.
        """

    @property
    @abstractmethod
    def bytes(self) -> int:
        """About how much there is to read."""

    @property
    @abstractmethod
    def slow(self) -> bool:
        """Whether reading a cloud is work enough for worker processes."""

    @abstractmethod
    def check(self) -> None:
        """Read everything; raises what ``read`` would."""

    def look(self, index: int) -> None:  # noqa: B027  what opening finds needs no look
        """Find what is missing or empty, of files that nobody has opened yet; raises what ``read`` would."""


@dataclass
class Chosen(Clouds):
    """Some clouds of others."""

    clouds: Clouds
    chosen: Ints
    names: Sequence[str] = field(init=False)
    labels: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.names = [self.clouds.names[n] for n in self.chosen]
        self.labels = self.clouds.labels[self.chosen]

    def read(self, index: int, most: int | None = None) -> Cloud:
        return self.clouds.read(int(self.chosen[index]), most)

    @property
    def bytes(self) -> int:
        return self.clouds.bytes

    @property
    def slow(self) -> bool:
        return self.clouds.slow

    def check(self) -> None:
        for index in range(len(self)):
            self.read(index)

    def look(self, index: int) -> None:
        self.clouds.look(int(self.chosen[index]))


@dataclass(frozen=True)
class PointData:
    """A set of clouds by name, split and described.

    Attributes:
        name: of the set.
        classes: of whole clouds; categories where parts are known.
        parts: of each category, numbers of its parts; empty where there are none.
        part_names: of every part.
        channels: of a point.
        unit_sphere: whether clouds lie in the unit sphere, so that a new one has to.
        fingerprint: changes when the clouds do.
        skipped: one line for each cloud that was left out.
        train: what is learned from.
        val: what is measured on.
    """

    name: str
    classes: tuple[str, ...]
    parts: Mapping[str, tuple[int, ...]]
    part_names: tuple[str, ...]
    channels: int
    unit_sphere: bool
    fingerprint: str
    skipped: tuple[str, ...]
    train: Samples
    val: Samples


@dataclass(frozen=True)
class Layout:
    """What a reader found: both sides, and what their numbers mean."""

    train: Clouds
    val: Clouds
    classes: tuple[str, ...]
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    part_names: tuple[str, ...] = ()
    centred: bool = False
    """Whether clouds are stored in the unit sphere."""
    whole: bool = True
    """Whether reading all of them before training is quick."""

    def without(self, names: set[str], told: str) -> Layout:
        """The same without these clouds.

        Raises:
            DataError: one of them is not here.
        """
        unknown = names.difference(self.train.names, self.val.names)
        if unknown:
            raise DataError(
                f"load: {told} names {sorted(unknown)[0]}, which is no cloud of this set. Name them as "
                f"{self.train.names[0]}, say."
            )
        return replace(self, train=_without(self.train, names), val=_without(self.val, names))


def _without(clouds: Clouds, names: set[str]) -> Clouds:
    kept = np.array([n for n, name in enumerate(clouds.names) if name not in names], np.int64)
    return clouds if len(kept) == len(clouds) else Chosen(clouds, kept)


def check_points(points: npt.NDArray[Any], where: str) -> None:
    """Raise where a coordinate is no finite number.

    Raises:
        DataError: with the first such point.
    """
    with np.errstate(over="ignore"):
        broken = ~np.isfinite(points.astype(np.float32, copy=False)).all(1)
    if broken.any():
        raise DataError(
            f"load: {where} has {int(broken.sum())} of {len(points)} points that are no finite numbers, the first is "
            f"point {int(broken.argmax())}. Repair it, or leave it out by a line of --data.skip's file."
        )


def check_parts(parts: Ints, allowed: Sequence[int], category: str, where: str) -> None:
    """Raise where a part is none of its category.

    Raises:
        DataError: with the first such point.
    """
    wrong = ~np.isin(parts, allowed)
    if wrong.any():
        first = int(wrong.argmax())
        raise DataError(
            f"load: {where} is a {category}, whose parts are {min(allowed)} to {max(allowed)}, got part "
            f"{int(parts[first])} at point {first}. Repair it, or leave it out by a line of --data.skip's file."
        )
