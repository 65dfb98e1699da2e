"""How far disparities are off: the end-point error averaged in three ways, and shares of pixels that are wrong.

A pixel counts where its disparity is known and below the network's largest; ``_all`` counts every one that is known.

==============  =======================================================================================
epe             mean over pixels of the distance of found from true, then over images that have such pixels
epe_pixels      mean over all pixels of all images
epe_batches     mean over the pixels of 8 images in the order of the data, then over these batches, as PSMNet's
                code prints it; 0 for a batch without such pixels, as there
bad1 to bad3    share of all pixels that are off by more than 1, 2, 3 pixels
d1              share of all pixels that are off by more than 3 pixels and by more than 5 % (KITTI 2015)
==============  =======================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from foveal.analysis.metrics import Metric
from foveal.errors import DataError

BATCH = 8
COLUMNS = ("pixels", "error", "bad1", "bad2", "bad3", "d1", "all_pixels", "all_error", "all_d1")

METRICS: dict[str, Metric] = {
    "epe": Metric("EPE", least=True, unit="px"),
    "d1": Metric("D1", percent=True, least=True),
    "bad1": Metric("off by over 1 px", percent=True, least=True),
    "bad2": Metric("off by over 2 px", percent=True, least=True),
    "bad3": Metric("off by over 3 px", percent=True, least=True),
    "epe_pixels": Metric("EPE of all pixels", least=True, unit="px"),
    "epe_batches": Metric("EPE of batches of 8", least=True, unit="px"),
    "epe_all": Metric("EPE of any disparity", least=True, unit="px"),
    "d1_all": Metric("D1 of any disparity", percent=True, least=True),
}

Sums = tuple[float, ...]
"""Of one image, by ``COLUMNS``."""


def sums(found: Tensor, true: Tensor, max_disparity: int) -> Sums:
    """What one image adds: numbers of pixels, of errors in pixels, and of pixels that are wrong.

    Args:
        found: ``(rows, columns)``.
        true: ``(rows, columns)``, NaN where nothing is known.
        max_disparity: pixels at or above this count in ``_all`` alone.
    """
    there = ~true.isnan()
    near = there & (true < max_disparity)
    # Where nothing is known a difference is NaN, which a sum would carry on.
    off = torch.where(there, (found.double() - true.double()).abs(), 0.0)
    d1 = (off > 3) & (off > 0.05 * true)
    counts = (
        near.sum(), off[near].sum(), *((near & (off > limit)).sum() for limit in (1, 2, 3)), (near & d1).sum(),
        there.sum(), off.sum(), d1.sum(),
    )  # fmt: skip
    return tuple(torch.stack([count.double() for count in counts]).tolist())


def summary(images: Mapping[int, Sums]) -> dict[str, float]:
    """The metrics of a split from what each of its images, by index, adds.

    Raises:
        DataError: no pixel counts.
    """
    table: npt.NDArray[np.float64] = np.array([images[index] for index in sorted(images)]).reshape(-1, len(COLUMNS))
    column = dict(zip(COLUMNS, table.T, strict=True))
    total = {name: float(values.sum()) for name, values in column.items()}
    if total["pixels"] == 0:
        raise DataError(
            f"evaluate: none of {len(images)} pairs has a known disparity below the largest of the network. Use a "
            "larger --model.options.max_disparity, or other data."
        )
    whole = column["pixels"] > 0
    told = {
        "epe": float((column["error"][whole] / column["pixels"][whole]).mean()),
        "epe_pixels": total["error"] / total["pixels"],
        "epe_batches": _by_batches(column["error"], column["pixels"]),
        **{name: total[name] / total["pixels"] for name in ("bad1", "bad2", "bad3", "d1")},
        "epe_all": total["all_error"] / total["all_pixels"],
        "d1_all": total["all_d1"] / total["all_pixels"],
    }
    return {name: told[name] for name in METRICS}


def _by_batches(errors: Sequence[float], pixels: Sequence[float]) -> float:
    means = []
    for start in range(0, len(pixels), BATCH):
        error, count = (float(sum(values[start : start + BATCH])) for values in (errors, pixels))
        means.append(error / count if count else 0.0)
    return sum(means) / len(means)
