"""Class numbers that a network is told beside its input."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from foveal.errors import OptionError, ShapeError


def check_labels(
    who: str, labels: Tensor | None, *, batch: int, classes: int, name: str = "labels", option: str = "num_classes"
) -> Tensor | None:
    """Labels ``(batch,)`` of ``classes`` classes, an ``option`` of the network; none where it has no classes.

    Raises:
        ShapeError: they are missing, of another shape or not integers.
        OptionError: the network takes none, or a label is out of range; seen on the CPU alone, where looking is free.
    """
    if classes == 0:
        if labels is not None:
            raise OptionError(f"{who}: it was built without classes, got {name}. Leave them out, or set {option}.")
        return None
    fits = isinstance(labels, Tensor) and labels.dtype in (torch.int64, torch.int32) and labels.shape == (batch,)
    if labels is None or not fits:
        came = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise ShapeError(f"{who}: {name} must be integers of shape ({batch},), one a sample, got {came}.")
    # What has no contents has nothing to look at.
    seen = labels.device.type == "cpu" and not isinstance(labels, FakeTensor)
    if seen and batch and not torch.compiler.is_compiling():
        least, most = (int(bound) for bound in labels.aminmax())
        if least < 0 or most >= classes:
            raise OptionError(f"{who}: {name} must be 0 to {classes - 1}, got {least} to {most}. Check {option}.")
    return labels
