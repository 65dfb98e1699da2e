"""Average precision of boxes and masks as COCO defines it, and the records that its servers take.

The counting is that of faster-coco-eval, which gives the figures of pycocotools.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from foveal.data.detection.annotations import Annotations, Numbers
from foveal.data.detection.rle import encode, mask_api
from foveal.errors import DataError
from foveal.models.detection import pasted

KINDS = {"box": "bbox", "mask": "segm"}
SMALL, LARGE, MOST = 32**2, 96**2, 1e10
WITHIN = {
    **dict.fromkeys(("ap", "ap50", "ap75"), (0, MOST)),
    "ap_small": (0, SMALL), "ap_medium": (SMALL, LARGE), "ap_large": (LARGE, MOST),
}  # fmt: skip
"""In the order of COCO's summary, with least and largest area, in pixels, of the objects that a figure is of."""
CELLS = 1e-3  # pixels to which a box is written
INSIDE = 0.5  # of a mask's share, from which on a pixel is the object's


def records(
    found: Mapping[str, Tensor], image: int, size: tuple[int, int], category_ids: Sequence[int | None]
) -> list[dict[str, Any]]:
    """What a detector found in one image, as COCO's results have it; masks are encoded one by one.

    Args:
        found: ``boxes (n, 4)``, ``labels``, ``scores`` and maybe ``masks (n, 1, m, m)`` of the boxes.
        image: its id.
        size: its rows and columns.
        category_ids: of the classes from 1 on; what is found of a class without one is left out.
    """
    boxes, labels, scores = (found[name].detach().float().cpu() for name in ("boxes", "labels", "scores"))
    masks = found["masks"].detach().float().cpu() if "masks" in found else None
    told = []
    for n, label in enumerate(labels.long().tolist()):
        if label == 0 or category_ids[label - 1] is None:
            continue
        left, top, right, bottom = boxes[n].double().tolist()
        sides = [round(side / CELLS) * CELLS for side in (left, top, right - left, bottom - top)]
        record = {
            "image_id": image,
            "category_id": category_ids[label - 1],
            "bbox": [round(side, 3) for side in sides],
            "score": round(float(scores[n]), 6),
        }
        if masks is not None:
            record["segmentation"] = encode((pasted(masks[n], boxes[n], *size) > INSIDE).numpy())
        told.append(record)
    return told


class Precision:
    """Average precision of one kind over a data set.

    Args:
        truth: as ``Annotations.truth`` gives it.
        results: of all images, see ``records``.
        kind: ``"box"`` or ``"mask"``.
    """

    def __init__(self, truth: dict[str, Any], results: list[dict[str, Any]], kind: str) -> None:
        mask_api()  # says what is missing
        from faster_coco_eval import COCO, COCOeval_faster

        self.kind, self.categories = kind, {each["id"]: each["name"] for each in truth["categories"]}
        self._precision: Any = None
        # An id of 0 means "not matched" to the counting, and of two objects with one id it finds one.
        numbered = [{**each, "id": number} for number, each in enumerate(truth["annotations"], 1)]
        known = COCO({**truth, "annotations": numbered})
        areas = np.array([each["area"] for each in truth["annotations"] if not each["iscrowd"]], np.float64)
        self.parts = measured_parts(areas)
        if results:
            counted = COCOeval_faster(known, known.loadRes([_copy(each, kind) for each in results]), KINDS[kind])
            counted.evaluate()
            counted.accumulate()
            counted.summarize()
            self._precision, self._stats = counted.eval["precision"], list(counted.stats)
        else:
            self._stats = [0.0] * len(WITHIN)

    def metrics(self) -> dict[str, float]:
        """AP, at 50 and 75 % overlap, and of small, medium and large objects where there are any."""
        told = zip(WITHIN, self._stats, strict=False)
        return {f"{self.kind}_{part}": float(value) for part, value in told if part in self.parts}

    def by_class(self) -> dict[int, float | None]:
        """AP of each category; None where it has no object."""
        if self._precision is None:
            return dict.fromkeys(self.categories, 0.0)
        of_all = self._precision[:, :, :, 0, -1]  # overlaps, recalls, categories
        means: dict[int, float | None] = {}
        for n, number in enumerate(sorted(self.categories)):
            counted = of_all[:, :, n][of_all[:, :, n] > -1]
            means[number] = float(counted.mean()) if counted.size else None
        return means


def measured_parts(areas: Numbers) -> set[str]:
    """Which of ``WITHIN`` there is a figure of, where objects that are no crowds have these areas, ``(n,)``."""
    return {part for part, (least, most) in WITHIN.items() if ((areas >= least) & (areas <= most)).any()}


def objects(annotations: Annotations, images: Sequence[int]) -> dict[int, int]:
    """How many objects of each category count, crowds not."""
    places = np.concatenate([annotations.of(n) for n in images]) if len(images) else np.zeros(0, np.int64)
    kinds = annotations.kinds[places[~annotations.crowds[places]]]
    return {number: int((kinds == number).sum()) for number in annotations.categories}


def write_results(path: Path, results: list[dict[str, Any]]) -> None:
    """Write what COCO's servers and tools take.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        path.write_text(json.dumps(results), encoding="utf-8")
    except OSError as error:
        raise DataError(f"evaluate: {path} could not be written: {error.strerror}. Use another path.") from error


def _copy(record: dict[str, Any], kind: str) -> dict[str, Any]:
    """What the evaluation may write into; of masks without the boxes, whose areas it would take for those of the masks
    when it sorts them into small, medium and large."""
    without = "bbox" if kind == "mask" else "segmentation"
    told = {name: value for name, value in record.items() if name != without}
    return {name: dict(value) if isinstance(value, dict) else value for name, value in told.items()}
