"""What a trained detector finds on new images: classes, boxes, scores and masks, drawn where that is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from foveal.data.detection.coco import HOLE
from foveal.errors import DataError, OptionError
from foveal.models.detection import masks_in_boxes
from foveal.tasks.detection.precision import records
from foveal.tasks.kind import Asked, Drawn, Opened
from foveal.tasks.predict import answered
from foveal.viz.detections import Seen, drawn

THRESHOLD = 0.5


def answers(opened: Opened, images: Iterable[str], asked: Asked) -> Iterator[Drawn]:
    """One answer a file, in order; a damaged one has its error.

    Images go through the model one at a time, since what stands beside them in a batch changes their border.

    Raises:
        OptionError: the threshold is no share.
        DataError: the detector answers with what is no number.
    """
    threshold = THRESHOLD if asked.threshold is None else asked.threshold
    if not 0 <= threshold <= 1:
        raise OptionError(f"predict: --threshold must be at least 0 and at most 1, got {threshold}. Use 0.5, say.")
    return answered(images, lambda name, picture: _answer(opened, name, picture, threshold, asked.draw))


def _answer(opened: Opened, name: str, picture: Any, threshold: float, draw: bool) -> Drawn:
    classes, size = list(opened.told["classes"]), (int(picture.shape[0]), int(picture.shape[1]))
    with torch.no_grad(), masks_in_boxes(opened.model), _down_to(opened.model, threshold), opened.autocast():
        one = opened.model([_floats(picture, opened.device)])[0]
    if not all(bool(one[part].isfinite().all()) for part in ("boxes", "scores")):
        raise DataError(f"predict: {opened.source} answers with NaN, so its weights are no use. Train it again.")
    kept = one["scores"] >= threshold
    holes = opened.recipe.data.labels == "ids"
    known = [None if holes and name == HOLE else number for number, name in enumerate(classes, 1)]
    told = records({part: values[kept] for part, values in one.items()}, 0, size, known)
    things = [
        {
            "class": classes[each["category_id"] - 1],
            "score": each["score"],
            "box": each["bbox"],
            **({"mask": each["segmentation"]} if "segmentation" in each else {}),
        }
        for each in told
    ]
    record = {"size": list(size), "objects": things}
    if not draw:
        return Drawn(name, record)
    seen = [
        Seen(each["class"], each["score"], each["box"], each.get("mask"), classes.index(each["class"]))
        for each in things
    ]
    return Drawn(name, record, picture=drawn(picture, seen))


def _floats(picture: Any, device: torch.device) -> Tensor:
    return torch.from_numpy(picture.copy()).to(device).permute(2, 0, 1).float().div_(255)


@contextmanager
def _down_to(model: nn.Module, threshold: float) -> Iterator[None]:
    """Within this the detector gives what it finds down to a score, where it would stop before."""
    parts: list[Any] = [part for part in (model, getattr(model, "roi_heads", None)) if hasattr(part, "score_thresh")]
    before = [part.score_thresh for part in parts]
    for part in parts:
        part.score_thresh = min(part.score_thresh, threshold)
    try:
        yield
    finally:
        for part, value in zip(parts, before, strict=True):
            part.score_thresh = value
