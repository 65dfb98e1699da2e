"""The external paper's figures on point clouds, and what the networks cost, those for parts too."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foveal import models
from foveal.analysis.ledger.conventions import MACS, MILLIONS
from foveal.analysis.ledger.records import CHECKED, COUNTED, MEMORY, Column, Row, Source, Table, Trained
from foveal.analysis.ledger.tally import figure_of_network

_PARAMETERS, _FLOPS = Column("parameters", "M", MILLIONS), Column("FLOPs", "G", MACS)
_ACCURACY, _PIOU = Column("accuracy", "%", metric="accuracy"), Column("pIoU", "%", metric="instance_miou")
_TRAINING = {"": "not run here: takes training"}
_WHY = {**_TRAINING, "FLOPs": "what the paper counts is not stated"}
CLOUDS, PARTS = "modelnet40", "shapenetpart"


def _parts(attention: str) -> Trained:
    return Trained("part_segmenter", PARTS, {"attention": attention})


PUBLISHED = Table(
    "external", "points", "Point clouds: ModelNet40 accuracy, ShapeNet part pIoU", (_ACCURACY, _PIOU),
    (
        Row("PCT", "93.2 86.4", why=_TRAINING, sources={"pIoU": Source("third-party notes on the paper")},
            trained={"accuracy": Trained("pct", CLOUDS), "pIoU": _parts("offset")}),
        Row("EAT", "93.4 86.5", why=_TRAINING,
            trained={"accuracy": Trained("eat", CLOUDS), "pIoU": _parts("external")}),
    ),
    MEMORY,
)  # fmt: skip


def _row(label: str, printed: str, make: Any, **sources: Source) -> Row:
    return Row(label, printed, make.__name__, layer=make, why=_WHY, sources=sources)


NETWORKS = Table(
    "external", "PCT", "The point-cloud transformers that external attention is put into, ModelNet40",
    (_PARAMETERS, _FLOPS, _ACCURACY),
    (
        _row("NPCT", "1.36 1.80 91.0", models.npct, parameters=CHECKED),
        _row("SPCT", "1.36 1.82 92.0", models.spct, parameters=CHECKED),
        _row("PCT", "2.88 2.32 93.2", models.pct, parameters=CHECKED),
        _row("EAT, 64 slots", f"{COUNTED} {COUNTED} -", models.eat),
    ),
    MEMORY, (3, 1024), CLOUDS,
)  # fmt: skip


def segmenter(attention: Any) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The network for parts, a cloud of 2,048 points and its category."""
    return models.part_segmenter(attention=attention), (torch.empty(1, 3, 2048), torch.zeros(1, dtype=torch.long))


def _segmenter(label: str, attention: str) -> Row:
    make = partial(segmenter, attention)
    computed = {each.name: partial(figure_of_network, make, each.rule) for each in (_PARAMETERS, _FLOPS) if each.rule}
    return Row(label, f"{COUNTED} {COUNTED}", "part_segmenter", computed=computed)


SEGMENTERS = Table(
    "external", "parts", "The same trunks with a part for every point, ShapeNet part, 2,048 points",
    (_PARAMETERS, _FLOPS),
    (
        _segmenter("NPCT", "self"), _segmenter("SPCT", "offset"), _segmenter("EAT, 64 slots", "external"),
    ),
    MEMORY,
)  # fmt: skip

TABLES = (PUBLISHED, NETWORKS, SEGMENTERS)
