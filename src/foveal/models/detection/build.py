"""A detector by its name and options, as a recipe has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from foveal.errors import OptionError
from foveal.functional.inputs import check_choice
from foveal.models.detection.rcnn import faster_rcnn, mask_rcnn
from foveal.models.detection.retinanet import retinanet

DETECTORS: dict[str, Callable[..., nn.Module]] = {
    "mask_rcnn": mask_rcnn,
    "faster_rcnn": faster_rcnn,
    "retinanet": retinanet,
}
MASKS = ("mask_rcnn",)
"""Those that learn masks."""


def detector(name: str, options: Mapping[str, Any], *, classes: int) -> nn.Module:
    """A detector with new weights.

    Args:
        name: of ``DETECTORS``.
        options: of its builder, but for ``num_classes``.
        classes: that it tells apart, the background not counted.

    Raises:
        OptionError: the name or an option is unknown, or a value is none that it takes.
        DataError: the weights of its backbone do not fit.
    """
    check_choice("train: --model.name", "name", name, tuple(DETECTORS))
    if "num_classes" in options:
        raise OptionError("train: num_classes follows from the data. Drop it from --model.options.")
    try:
        return DETECTORS[name](num_classes=classes + 1, **options)
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, OptionError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise OptionError(
            f"train: {name} cannot be made with {dict(options)}: {reason}. Change --model.options."
        ) from error
