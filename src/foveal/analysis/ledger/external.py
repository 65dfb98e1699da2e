"""Guo et al., Beyond Self-attention: External Attention using Two Linear Layers (2021).

Of the paper itself only the abstract was at hand, so tables have no numbers here. Figures are from the authors' code,
from third parties, or from memory, as each cell says; the cost table is from memory.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from foveal import layers, models
from foveal.analysis.ledger.conventions import MACS, MILLIONS, SHARED_MEMORY, WITH_FIXED
from foveal.analysis.ledger.detectors import NOT_TRAINED
from foveal.analysis.ledger.records import AUTHORS, CHECKED, FAINT, MEMORY, SITES, Column, Row, Source, Table

_PARAMETERS, _MACS = Column("parameters", "M", MILLIONS), Column("MACs", "G", MACS)
_TOP1 = Column("top-1", "%", metric="accuracy")
_TOKENS = 14 * 14 + 1
_README = Source("a third party's table of results (ViP)")

IMAGENET = Table(
    "external", "ImageNet", "EAMLP, ImageNet", (Column("parameters", "M", WITH_FIXED), _TOP1),
    (
        Row("EAMLP-7, 384 pixels", "- 71.7", "foveal_eamlp_7", sources={"top-1": AUTHORS}),
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
_MIOU = (Column("mIoU", "%"),)
SEGMENTATION = Table(
    "external", "segmentation", "EANet, semantic segmentation", _MIOU,
    (
        Row("PASCAL VOC test, ResNet-101", "84.0", why=_SEGMENTER, sources={"": MEMORY}),
        Row("ADE20K val, ResNet-101", "45.33", why=_SEGMENTER),
        Row("Cityscapes val, ResNet-101", "81.7", why=_SEGMENTER),
    ),
    SITES,
)  # fmt: skip
ABLATION = Table(
    "external", "ablation", "Ablation, PASCAL VOC val, ResNet-50", _MIOU,
    (
        Row("FCN", "75.7", why=_SEGMENTER),
        Row("with self-attention", "76.2", why=_SEGMENTER),
        Row("with external attention, 64 slots, stride 16", "77.1", why=_SEGMENTER),
        Row("with external attention, 64 slots, stride 8", "77.4", why=_SEGMENTER),
        Row("softmax instead of double normalisation", "75.3", why=_SEGMENTER),
    ),
    FAINT,
)  # fmt: skip
DETECTION = Table(
    "external", "detection", "Detectors, COCO", (Column("box AP", "%"),),
    (
        Row("RetinaNet", "36.5", why={"": NOT_TRAINED}),
        Row("RetinaNet with external attention", "37.4", why={"": NOT_TRAINED}),
    ),
    FAINT,
)  # fmt: skip

_GAN = {"": "not run here: takes training, and the weights of the Inception network"}
_ANOTHER_GAN = {"": "another paper's network, not in foveal"}
_SCORES = (Column("FID", "", metric="fid"), Column("IS", "", metric="inception_score"))
_STUDIO = Source("from memory, and a third party's table agrees", "medium")


def _gans(title: str, data: str, rows: dict[str, str], faint: tuple[str, ...]) -> Table:
    told: Any = {name: {"": FAINT} if name in faint else {} for name in rows}
    ours = {"SAGAN": "sagan", "EAGAN": "eagan"}
    made = tuple(
        Row(name, printed, ours.get(name, ""), why=_GAN if name in ours else _ANOTHER_GAN, sources=told[name])
        for name, printed in rows.items()
    )
    return Table("external", "GAN", title, _SCORES, made, _STUDIO, data=data)


GAN_CIFAR = _gans(
    "Image generation, CIFAR-10", "cifar10",
    {
        "DCGAN": "49.030 6.638", "LSGAN": "66.686 5.577", "WGAN-GP": "25.852 7.458", "ProjGAN": "33.830 7.539",
        "SAGAN": "14.498 8.626", "EAGAN": "14.105 8.630",
    },
    ("SAGAN", "EAGAN"),
)  # fmt: skip
GAN_TINY = _gans(
    "Image generation, Tiny ImageNet", "tinyimagenet",
    {
        "DCGAN": "91.625 5.640", "LSGAN": "90.008 5.381", "ProjGAN": "89.175 6.224", "SAGAN": "51.414 8.342",
        "EAGAN": "48.374 8.673",
    },
    ("EAGAN",),
)  # fmt: skip

_POINTS = {"": "not run here: takes training", "FLOPs": "what the paper counts is not stated"}
POINTS = Table(
    "external", "points", "Point clouds: ModelNet40 accuracy, ShapeNet part pIoU",
    (Column("accuracy", "%"), Column("pIoU", "%")),
    (
        Row("PCT", "93.2 86.4", why={"": _POINTS[""]}, sources={"pIoU": Source("third-party notes on the paper")}),
        Row("EAT", "93.4 86.5", why={"": _POINTS[""]}),
    ),
    MEMORY,
)  # fmt: skip
PCT = Table(
    "external", "PCT", "The point-cloud transformers that external attention is put into, ModelNet40",
    (_PARAMETERS, Column("FLOPs", "G", MACS), Column("accuracy", "%")),
    (
        Row("NPCT", "1.36 1.80 91.0", layer=models.npct, why=_POINTS, sources={"parameters": CHECKED}),
        Row("SPCT", "1.36 1.82 92.0", layer=models.spct, why=_POINTS, sources={"parameters": CHECKED}),
        Row("PCT", "2.88 2.32 93.2", layer=models.pct, why=_POINTS, sources={"parameters": CHECKED}),
    ),
    MEMORY, (3, 1024),
)  # fmt: skip

TABLES = (IMAGENET, COSTS, SEGMENTATION, ABLATION, DETECTION, GAN_CIFAR, GAN_TINY, POINTS, PCT)
