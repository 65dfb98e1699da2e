"""Whether two ways to compute one thing agree: nothing is timed that computes something else."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from foveal.errors import ShapeError

TOLERANCE = 2e-4


def errors(came: Tensor | Sequence[Tensor], wanted: Tensor | Sequence[Tensor]) -> list[float]:
    """The error of each result over its largest entry; up to ``TOLERANCE`` it is rounding, NaN is none.

    A gradient that is zero but for rounding, as that of a key's bias, is measured by the largest of all.

    Raises:
        ShapeError: there are more results on one side.
    """
    ours, theirs = ([x] if isinstance(x, Tensor) else list(x) for x in (came, wanted))
    if len(ours) != len(theirs):
        raise ShapeError(f"agreement: {len(ours)} results against {len(theirs)}. Compare calls of the same work.")
    floor = 1e-3 * max((float(b.abs().max()) for b in theirs), default=0.0)
    return [
        float((a - b.reshape(a.shape)).abs().max()) / max(float(b.abs().max()), floor, 1e-30)
        for a, b in zip(ours, theirs, strict=True)
    ]
