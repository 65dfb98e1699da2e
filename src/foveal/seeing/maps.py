"""What a capture holds: the calls by module name, and why others cannot be read."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from foveal.errors import NoMatchError
from foveal.seeing.captured import Captured


class Maps(Mapping[str, Captured]):
    """The newest call of every layer by its module's name; ``calls`` has more of them where more were asked for.

    Attributes:
        left_out: modules that look like attention and cannot be read, with the reason.
    """

    def __init__(self) -> None:
        self.left_out: dict[str, str] = {}
        self._calls: dict[str, list[Captured]] = {}

    def calls(self, name: str) -> tuple[Captured, ...]:
        """The calls of one layer that are kept, the oldest first."""
        if name not in self._calls:
            near = difflib.get_close_matches(name, self._calls, n=3, cutoff=0.3)
            hint = f"The nearest are {', '.join(near)}." if near else f"There are {', '.join(self._calls) or 'none'}."
            why = f"its maps cannot be read: {self.left_out[name]}" if name in self.left_out else "nothing was captured"
            raise NoMatchError(f"capture: of {name!r} {why}. {hint}")
        return tuple(self._calls[name])

    def add(self, call: Captured, keep: int) -> None:
        """Keep a call, and no more than so many of its layer."""
        calls = self._calls.setdefault(call.name, [])
        calls.append(call)
        del calls[:-keep]

    def at_pixel(self, pixel: Sequence[float], *, average: bool = True, smooth: bool = False) -> dict[str, Tensor]:
        """What every layer looks at from a pixel, at the resolution of the image, in the order that they ran.

        Layers whose positions lie on no image are not among them.

        Raises:
            ShapeError: no layer's positions lie on an image, or the pixel does not.
        """
        placed = {name: call for name, call in self.items() if not call.grid.nowhere} or self
        return {name: call.at_pixel(pixel, average=average, smooth=smooth) for name, call in placed.items()}

    def __getitem__(self, name: str) -> Captured:
        return self.calls(name)[-1]

    def __contains__(self, name: object) -> bool:
        return name in self._calls

    def __iter__(self) -> Iterator[str]:
        return iter(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def __repr__(self) -> str:
        lines = [repr(call) for call in self.values()]
        lines += [f"left out: {name}, {reason}" for name, reason in self.left_out.items()]
        return "\n".join(lines) or "nothing captured yet"
