"""Guo et al., Beyond Self-attention: External Attention using Two Linear Layers (2021).

Of the paper itself only the abstract was at hand, so tables have no numbers here. Figures are from the authors' code,
from third parties, or from memory, as each cell says; the cost table is from memory.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from foveal import layers
from foveal.analysis.ledger import generation, points
from foveal.analysis.ledger.conventions import MACS, MILLIONS, SHARED_MEMORY, WITH_FIXED
from foveal.analysis.ledger.detectors import COCO, NOT_TRAINED
from foveal.analysis.ledger.records import AUTHORS, FAINT, MEMORY, SITES, Column, Row, Source, Table, Trained

_PARAMETERS, _MACS = Column("parameters", "M", MILLIONS), Column("MACs", "G", MACS)
_TOP1 = Column("top-1", "%", metric="accuracy")
_TOKENS = 14 * 14 + 1
_README = Source("a third party's table of results (ViP)")

IMAGENET = Table(
    "external", "ImageNet", "EAMLP, ImageNet", (Column("parameters", "M", WITH_FIXED), _TOP1),
    (
        Row("EAMLP-7, 384 pixels", "- 71.7", "foveal_eamlp_7", sources={"top-1": AUTHORS},
            trained={"": Trained("foveal_eamlp_7", "imagenet", {"img_size": 384})}),
        Row("EAMLP-14", "30 78.9", "foveal_eamlp_14", fixed=_TOKENS * 384),
        Row("EAMLP-19", "55 79.4", "foveal_eamlp_19", fixed=_TOKENS * 448),
    ),
    _README, data="imagenet", options={"num_classes": 1000},
)  # fmt: skip

_UNIT = {"parameters": "1.00 in 2^20; the table's unit is not known for certain"}
_ANOTHER = {"": "another paper's module, not in foveal"}


def _self_attention() -> nn.Module:
    return layers.AugmentedAttention(512, 512, key_channels=512, heads=1)


def _external_attention() -> nn.Module:
    return layers.ExternalAttention(512, slots=64, memories="tied")


COSTS = Table(
    "external", "cost", "Attention modules on a map of 512 x 128 x 128", (_PARAMETERS, _MACS),
    (
        Row("self-attention", "1.00 292", layer=_self_attention, why=_UNIT),
        Row("DA", "4.82 79.5", why=_ANOTHER),
        Row("A2", "1.01 25.7", why=_ANOTHER),
        Row("APC", "2.03 17.6", why=_ANOTHER),
        Row("DM", "3.00 35.1", why=_ANOTHER),
        Row("ACF", "0.75 79.5", why=_ANOTHER),
        Row("Ham", "0.50 17.6", why=_ANOTHER),
        Row("external attention", "0.55 9.2", layer=_external_attention, rules={"MACs": SHARED_MEMORY}),
    ),
    FAINT, (512, 128, 128),
)  # fmt: skip

_SEGMENTER = {"": "not run here: takes training"}
_TEST = {"": "not run here: takes the server that has the labels of test"}
_MIOU = (Column("mIoU", "%", metric="miou"),)


def _eanet(data: str, depth: int, stride: int, **options: Any) -> dict[str, Trained]:
    return {"": Trained("eanet", data, {"depth": depth, "output_stride": stride, **options})}


SEGMENTATION = Table(
    "external", "segmentation", "EANet, semantic segmentation", _MIOU,
    (
        Row("PASCAL VOC test, ResNet-101", "84.0", why=_TEST, sources={"": MEMORY}),
        Row("ADE20K val, ResNet-101", "45.33", why=_SEGMENTER, trained=_eanet("ade20k", 101, 8)),
        Row("Cityscapes val, ResNet-101", "81.7", why=_SEGMENTER, trained=_eanet("cityscapes", 101, 8)),
    ),
    SITES,
)  # fmt: skip
_NON_LOCAL = {"attention": "nonlocal", "attention_options": {"key_channels": 512, "value_channels": 512}}
_SOFTMAX = {"attention_options": {"normalization": "softmax"}}
ABLATION = Table(
    "external", "ablation", "Ablation, PASCAL VOC val, ResNet-50", _MIOU,
    tuple(
        Row(label, printed, why=_SEGMENTER, trained=_eanet("voc", 50, stride, **options))
        for label, printed, stride, options in (
            ("FCN", "75.7", 16, {"attention": "none"}),
            ("with self-attention", "76.2", 16, _NON_LOCAL),
            ("with external attention, 64 slots, stride 16", "77.1", 16, {}),
            ("with external attention, 64 slots, stride 8", "77.4", 8, {}),
            ("softmax instead of double normalisation", "75.3", 16, _SOFTMAX),
        )
    ),
    FAINT,
)  # fmt: skip
_UNIT_AT_RES4 = {"attention": "external", "sites": ["res4"]}
DETECTION = Table(
    "external", "detection", "Detectors, COCO", (Column("box AP", "%", metric="box_ap"),),
    (
        Row("RetinaNet", "36.5", why={"": NOT_TRAINED}, trained={"": Trained("retinanet", COCO)}),
        Row("RetinaNet with external attention", "37.4", why={"": NOT_TRAINED},
            trained={"": Trained("retinanet", COCO, _UNIT_AT_RES4)}),
    ),
    FAINT,
)  # fmt: skip

TABLES = (IMAGENET, COSTS, SEGMENTATION, ABLATION, DETECTION, *generation.TABLES, *points.TABLES)
