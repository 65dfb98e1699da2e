"""Shen et al., Efficient Attention: Attention with Linear Complexities (2018): figure 3, its text, tables 3 to 11."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from foveal import models
from foveal.analysis.ledger.complexity import (
    Sizes,
    efficient_floats,
    efficient_operations,
    non_local_floats,
    non_local_operations,
)
from foveal.analysis.ledger.conventions import MILLIONS
from foveal.analysis.ledger.detectors import NOT_TRAINED, out_of_memory, trained_mask
from foveal.analysis.ledger.records import CHECKED, PAPER, Column, Row, Table, Trained

_TOP1, _TOP5 = Column("top-1", "%", metric="accuracy"), Column("top-5", "%", metric="accuracy_top5")
_BOX, _MASK = Column("box AP", "%", metric="box_ap"), Column("mask AP", "%", metric="mask_ap")
_DETECTOR = {"": NOT_TRAINED}
_STEREO = {"": "not run here: takes training on Scene Flow"}
_NON_LOCAL = {"": "a stored map of the 48 x 64 x 128 matches of a training crop is 618 GB: no GPU holds it"}
_OTHERS = {"": "another paper's network, not in foveal"}
_D, _KEY = 64, 32


@dataclass(frozen=True)
class Bars:
    """One size of figure 3: bytes of float32 and operations of both modules."""

    space: tuple[int, ...]
    efficient_bytes: float
    non_local_bytes: float
    efficient_operations: float
    non_local_operations: float


def figure_3(
    spaces: tuple[tuple[int, ...], ...] = ((28, 28, 4), (64, 64), (128, 128), (256, 256), (64, 64, 32)),
) -> list[Bars]:
    """The figure by the formulas of table 1, d = dv = 2 dk = 64, at the sizes that the text names and one between."""
    bars = []
    for space in spaces:
        s = Sizes(space, _D, _KEY)
        bars.append(
            Bars(
                space,
                4 * efficient_floats(s),
                4 * non_local_floats(s),
                efficient_operations(s),
                non_local_operations(s),
            )
        )
    return bars


def _ratio(*space: int, d: int = _D, key: int = _KEY, memory: bool) -> Callable[[], float]:
    s = Sizes(space, d, key)
    if memory:
        return lambda: non_local_floats(s) / efficient_floats(s)
    return lambda: non_local_operations(s) / efficient_operations(s)


_SAVES, _TAKES = Column("times less", ""), Column("non-local takes", "")
FIGURE = Table(
    "efficient", "figure 3", "Claims of figure 3's text; ours by the formulas of table 1, d = dv = 2 dk = 64, float32",
    (_SAVES, _TAKES),
    (
        Row("64 x 64, memory", "17 -", computed={"times less": _ratio(64, 64, memory=True)}),
        Row("64 x 64, computation", "32 -", computed={"times less": _ratio(64, 64, memory=False)}),
        Row("128 x 128, memory in GB", "- >1", computed={
            "non-local takes": lambda: 4 * non_local_floats(Sizes((128, 128), _D, _KEY)) / 1e9}),
        Row("128 x 128, computation in GMACC", "- >50", computed={
            "non-local takes": lambda: non_local_operations(Sizes((128, 128), _D, _KEY)) / 1e9}),
        Row("256 x 256, memory in GB", "260 17.2", computed={
            "times less": _ratio(256, 256, memory=True),
            "non-local takes": lambda: 4 * non_local_floats(Sizes((256, 256), _D, _KEY)) / 1e9,
        }, why={"times less": "257 rounded to two digits"}),
        Row("256 x 256, computation in GMACC", "515 412", computed={
            "times less": _ratio(256, 256, memory=False),
            "non-local takes": lambda: non_local_operations(Sizes((256, 256), _D, _KEY)) / 1e9,
        }, why={"times less": "without the sum with the map the formulas give 513", "non-local takes":
                "a slip: half of the table's formula, which counts a multiplication and an addition as two"}),
        Row("28 x 28 x 4, memory; ours at d = 1024, dk = 64", "2 -",
            computed={"times less": _ratio(28, 28, 4, d=1024, key=64, memory=True)}),
        Row("28 x 28 x 4, computation; ours at d = 1024, dk = 64", "2 -",
            computed={"times less": _ratio(28, 28, 4, d=1024, key=64, memory=False)},
            why={"times less": "at sizes that the text does not state; at 512 channels and 256 keys it is 3.7"}),
        Row("64 x 64 x 32, memory in GB", "32 >68", computed={
            "times less": _ratio(64, 64, 32, memory=True),
            "non-local takes": lambda: 4 * non_local_floats(Sizes((64, 64, 32), _D, _KEY)) / 1e9},
            why={"times less": "a slip by a power of two: the formulas give 1/512 or nearly so"}),
        Row("64 x 64 x 32, computation in TMACC", "1025 >3.2", computed={
            "times less": _ratio(64, 64, 32, memory=False),
            "non-local takes": lambda: non_local_operations(Sizes((64, 64, 32), _D, _KEY)) / 1e12},
            why={"times less": "1025 is the ratio of the formulas without the sum with the map, d n"}),
    ),
    PAPER,
)  # fmt: skip


def _why(label: str, printed: str) -> dict[str, str]:
    """Of the cells without a figure of ours."""
    return {"": out_of_memory(label.split()[-1])} if printed.startswith("OOM") else _DETECTOR


_PYRAMID = ("fpn1", "fpn2", "fpn3", "fpn4", "fpn5")
_BEST = (*_PYRAMID, "res3", "res4")


def _ea(*sites: str, backbone: str = "resnet50", **options: Any) -> dict[str, Trained]:
    return trained_mask(backbone, attention="efficient", sites=sites, **options)


def _nl(*sites: str) -> dict[str, Trained]:
    return trained_mask(attention="nonlocal", sites=sites)


def _detections(number: str, title: str, rows: tuple[tuple[str, str, dict[str, Trained]], ...]) -> Table:
    rowed = tuple(Row(label, printed, trained=trained, why=_why(label, printed)) for label, printed, trained in rows)
    return Table("efficient", number, f"{title}, Mask R-CNN, COCO", (_BOX, _MASK), rowed, PAPER)


COMPARISON = _detections("3", "Efficient attention (EA) and non-local module (NL)", (
    ("none", "39.4 35.1", trained_mask()),
    ("EA at res3", "40.2 36.0", _ea("res3")), ("NL at res3", "40.3 35.9", _nl("res3")),
    ("EA at fpn1", "39.9 35.8", _ea("fpn1")), ("NL at fpn1", "OOM OOM", _nl("fpn1")),
    ("EA at fpn2", "39.7 35.7", _ea("fpn2")), ("NL at fpn2", "OOM OOM", _nl("fpn2")),
    ("EA at fpn3", "39.7 35.5", _ea("fpn3")), ("NL at fpn3", "39.8 35.5", _nl("fpn3")),
    ("best EA", "41.2 36.7", _ea(*_BEST)), ("best NL", "40.3 35.9", _nl("res3")),
))  # fmt: skip
_DEEP, _DEEPER = _ea(*_BEST, backbone="resnet101"), _ea(*_BEST, backbone="resnext101_32x8d")
STATE = Table(
    "efficient", "4", "State of the art, COCO", (Column("AP", "%", metric="box_ap"),),
    (
        Row("TDM Faster R-CNN, Inc.-ResNet-v2", "36.8", why=_OTHERS),
        Row("Mask R-CNN, ResNeXt-101", "39.8", why=_OTHERS),
        Row("Soft-NMS, Algn.-Inc.-ResNet", "40.9", why=_OTHERS),
        Row("LH R-CNN, ResNet-101", "41.5", why=_OTHERS),
        Row("Fitness NMS, ResNet-101", "41.8", why=_OTHERS),
        Row("EA Mask R-CNN, ResNet-101", "43.1", trained=_DEEP, why=_DETECTOR),
        Row("EA Mask R-CNN, ResNeXt-101", "44.9", trained=_DEEPER, why=_DETECTOR),
    ),
    PAPER,
)  # fmt: skip


def _psmnet_parameters() -> float:
    with torch.device("meta"):
        return sum(p.numel() for p in models.psmnet().parameters()) / 1e6


# A network of two images, which the counter of layers cannot run.
_COUNTED = {"parameters": _psmnet_parameters}
PSMNET = Table(
    "efficient", "PSMNet", "The stereo network that efficient attention is put into",
    (Column("parameters", "M", MILLIONS),), (Row("PSMNet, stacked hourglass", "5.2", computed=_COUNTED),), CHECKED,
)  # fmt: skip
_EPE = (Column("EPE", "px", metric="epe"),)
_MATCHING = {"": Trained("psmnet", "sceneflow")}
_EA_MATCHING = {"": Trained("psmnet", "sceneflow", {"attention": "efficient"})}
STEREO = Table("efficient", "5", "Stereo depth, Scene Flow", _EPE, (
    Row("PSMNet (original)", "1.09", trained=_MATCHING, why=_STEREO),
    Row("PSMNet (baseline)", "0.513", trained=_MATCHING, why=_STEREO),
    Row("EA-PSMNet", "0.477", trained=_EA_MATCHING, why=_STEREO), Row("Nonlocal-PSMNet", "OOM", why=_NON_LOCAL),
), PAPER)  # fmt: skip
STEREO_STATE = Table("efficient", "6", "State of the art, Scene Flow", _EPE, (
    Row("iResNet-i2", "1.40", why=_OTHERS), Row("PSMNet", "1.09", trained=_MATCHING, why=_STEREO),
    Row("EdgeStereo", "1.12", why=_OTHERS), Row("CSPN", "0.78", why=_OTHERS),
    Row("EA-PSMNet", "0.48", trained=_EA_MATCHING, why=_STEREO),
), PAPER)  # fmt: skip

_OOM = "a map of 3136 x 3136 is 39 MB an image: whether that runs out depends on GPU and batch, which are not stated"
_FITS = "a map of 784 x 784 is 2.5 MB an image, which runs out nowhere: the table may mean an earlier stage"
IMAGENET = Table(
    "efficient", "7", "ResNet-50, ImageNet", (_TOP1, _TOP5),
    (
        Row("baseline", "76.052 92.952", "resnet50"),
        Row("EA at res1", "76.932 93.252", "foveal_efficient_resnet50_res1"),
        Row("NL at res1", "OOM OOM", "foveal_nonlocal_resnet50_res1", why={"": _OOM}),
        Row("EA at res2", "76.532 93.274", "foveal_efficient_resnet50_res2"),
        Row("NL at res2", "OOM OOM", "foveal_nonlocal_resnet50_res2", why={"": _FITS}),
        Row("EA at res1 and res2", "77.312 93.650", "foveal_efficient_resnet50_res12"),
        Row("NL at res1 and res2", "OOM OOM", "foveal_nonlocal_resnet50_res12", why={"": _OOM}),
    ),
    PAPER, data="imagenet",
)  # fmt: skip
NORMALIZATION = _detections("8", "Normalisation, at res3", (
    ("none", "NaN NaN", {}),
    ("scaling", "40.2 35.9", _ea("res3", normalization="scaling")), ("softmax", "40.2 36.0", _ea("res3")),
))  # fmt: skip
PLACES = _detections("9", "Where modules are inserted", (
    ("none", "39.4 35.1", trained_mask()),
    ("res3", "40.2 36.0", _ea("res3")), ("res4", "39.1 34.8", _ea("res4")),
    ("fpn1", "39.9 35.8", _ea("fpn1")), ("fpn2", "39.7 35.7", _ea("fpn2")), ("fpn3", "39.7 35.5", _ea("fpn3")),
    ("fpn4", "39.7 35.4", _ea("fpn4")), ("fpn5", "39.6 35.3", _ea("fpn5")),
    ("fpn1-5", "40.6 36.2", _ea(*_PYRAMID)), ("fpn1-5 and res3", "40.8 36.3", _ea(*_PYRAMID, "res3")),
    ("fpn1-5 and res3,4", "41.2 36.7", _ea(*_BEST)),
))  # fmt: skip
KEYS = _detections("10", "Key channels, at fpn1-5", tuple(
    (f"dk = {width}", printed, _ea(*_PYRAMID, key_channels=width))
    for width, printed in ((32, "40.4 36.1"), (64, "40.6 36.2"), (128, "40.3 36.1"))
))  # fmt: skip
BACKBONES = _detections("11", "Backbones, EA at fpn1-5 and res3,4", (
    ("ResNet-50", "39.4 35.1", trained_mask()), ("ResNet-50 with EA", "41.2 36.7", _ea(*_BEST)),
    ("ResNet-101", "41.3 36.6", trained_mask("resnet101")), ("ResNet-101 with EA", "43.1 37.9", _DEEP),
    ("ResNeXt-101", "43.5 38.5", trained_mask("resnext101_32x8d")), ("ResNeXt-101 with EA", "44.9 39.5", _DEEPER),
))  # fmt: skip

TABLES = (
    FIGURE, COMPARISON, STATE, PSMNET, STEREO, STEREO_STATE, IMAGENET, NORMALIZATION, PLACES, KEYS, BACKBONES,
)  # fmt: skip
