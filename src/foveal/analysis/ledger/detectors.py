"""Detectors as rows of the ledger: what they are made of, and modules at their sites held against the formulas."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from foveal.analysis.ledger.complexity import (
    Sizes,
    efficient_floats,
    non_local_floats,
    run_efficient,
    run_non_local,
)
from foveal.analysis.ledger.records import PAPER, Cell, Trained, Verdict
from foveal.models.detection import Trunk, retinanet

NOT_TRAINED = "not run here"
COCO = "coco"
INPUT = (3, 640, 640)
# At 896 x 1280 pixels, the size that the text's positions fit.
SITES = {
    "res1": Sizes((224, 320), 256, 64), "res2": Sizes((112, 160), 512, 64), "res3": Sizes((56, 80), 1024, 64),
    "res4": Sizes((28, 40), 2048, 64), "fpn1": Sizes((224, 320), 256, 64), "fpn2": Sizes((112, 160), 256, 64),
    "fpn3": Sizes((56, 80), 256, 64), "fpn4": Sizes((28, 40), 256, 64), "fpn5": Sizes((14, 20), 256, 64),
}  # fmt: skip


def retina(backbone: str, **options: Any) -> Callable[[], nn.Module]:
    """Makes what is counted of a RetinaNet of both papers: 90 classes, and two scales of anchors, which the published
    counts fit to the last digit where three would print 34.0M and 193 G."""
    return partial(_retina, backbone, **options)


def _retina(backbone: str, **options: Any) -> nn.Module:
    return Trunk(retinanet(backbone, num_classes=90, scales=2, **options))


def trained_retina(backbone: str, **options: Any) -> dict[str, Trained]:
    """The run of a RetinaNet on images that fit into 640 pixels, which both papers train."""
    told = {"min_size": 640, "max_size": 640, "scales": 2, "backbone": backbone, **options}
    return {"": Trained("retinanet", COCO, told)}


def trained_mask(backbone: str = "resnet50", **options: Any) -> dict[str, Trained]:
    """The run of a Mask R-CNN of the efficient paper."""
    return {"": Trained("mask_rcnn", COCO, {"backbone": backbone, "min_size": 896, "max_size": 1280, **options})}


def map_bytes(site: str) -> int:
    """Of every weight of dot-product attention at a site, float32, one image."""
    return 4 * SITES[site].n ** 2


def out_of_memory(site: str) -> str:
    """Why a table has OOM for a non-local module at a site."""
    n = SITES[site].n
    return (
        f"a map of {n} x {n} is {map_bytes(site) / 1e9:.2f} GB an image, and training holds several of "
        "two images on a GPU of 11 GB"
    )


def cells(paper: str) -> list[Cell]:
    """Floats of both modules at every site, by the formulas of table 1 and as counted at that size."""
    if paper != "efficient":
        return []
    kinds: tuple[tuple[str, str, Callable[[Sizes], float], Callable[[Sizes], Any]], ...] = (
        ("efficient attention", "(2 dk + 3 d) n + dk d", efficient_floats, run_efficient),
        ("non-local", "(2 dk + 3 d) n + n²", non_local_floats, run_non_local),
    )
    return [
        _cell(f"{kind} at {site}, d = {s.d}, n = {s.n}", printed, by_formula(s), float(run(s).floats))
        for site, s in SITES.items()
        for kind, printed, by_formula, run in kinds
    ]


def _cell(row: str, printed: str, wanted: float, counted: float) -> Cell:
    equal = wanted == counted
    return Cell(
        "efficient", "sites", "Modules at the sites of the detector, 896 x 1280 pixels, dk = 64, one image", row,
        "memory (floats)", "", printed, counted, counted - wanted, Verdict.EQUAL if equal else Verdict.DIFFERS,
        "" if equal else f"the formula gives {wanted:.0f}", "counted by torch's dispatcher", "", PAPER.where,
        PAPER.certainty,
    )  # fmt: skip
