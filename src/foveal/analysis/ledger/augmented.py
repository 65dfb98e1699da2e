"""Bello et al., Attention Augmented Convolutional Networks (2019), the baseline of the explicit paper.

The paper itself was not at hand: figures are from third-party notes on it, or from memory where that is said.
"""

from __future__ import annotations

from foveal.analysis.ledger.conventions import AA_NET, MEBI, MILLIONS
from foveal.analysis.ledger.detectors import INPUT, NOT_TRAINED, retina, trained_retina
from foveal.analysis.ledger.records import FAINT, MEMORY, NOTES, Column, Row, Source, Table, Trained

_FLOPS, _PARAMETERS = Column("FLOPs", "G", AA_NET), Column("parameters", "M", MILLIONS)
_TOP1, _TOP5 = Column("top-1", "%", metric="accuracy"), Column("top-5", "%", metric="accuracy_top5")
_AP = tuple(Column(name, "%", metric=f"box_{name.lower()}") for name in ("AP", "AP50", "AP75"))
_RECALLED = {"": MEMORY}
_DETECTOR = {"": NOT_TRAINED, "FLOPs": "its gates add 0.00 by every rule here"}
_WIDTHS = "what attends in the detector is not stated; the classifier's attention, taken here, adds where theirs saves"
_AUGMENTED = {"": NOT_TRAINED, "FLOPs": _WIDTHS, "parameters": _WIDTHS}
_MNAS = {"": "model not in foveal yet: MnasNet-A1"}
_RULE = {"FLOPs": "the paper does not say how it counts; ours is the rule that the deeper networks fit"}

IMAGENET = Table(
    "augmented", "ImageNet", "ResNets, ImageNet",
    (_FLOPS, _PARAMETERS, _TOP1, _TOP5),
    (
        Row("ResNet34", "7.4 21.8 73.6 91.5", "resnet34", why=_RULE),
        Row("SE-ResNet34", "7.4 22.0 74.3 91.8", "foveal_se_resnet34", why=_RULE, sources=_RECALLED),
        Row("AA-ResNet34", "7.1 20.7 74.7 92.0", "foveal_augmented_resnet34", why=_RULE),
        Row("ResNet50", "8.2 25.6 76.4 93.1", "resnet50"),
        Row("SE-ResNet50", "8.2 28.1 77.5 93.7", "foveal_se_resnet50"),
        Row("AA-ResNet50", "8.3 25.8 77.7 93.8", "foveal_augmented_resnet50", why=_RULE),
        Row("ResNet101", "15.6 44.5 77.9 94.0", "resnet101"),
        Row("AA-ResNet101", "16.1 45.4 78.7 94.4", "foveal_augmented_resnet101", why=_RULE),
        Row("ResNet152", "23.0 60.2 78.4 94.2", "resnet152", sources=_RECALLED),
        Row("SE-ResNet152", "23.1 66.8 78.9 94.5", "foveal_se_resnet152", why=_RULE, sources=_RECALLED),
        Row("AA-ResNet152", "23.8 61.6 79.1 94.6", "foveal_augmented_resnet152", why=_RULE, sources={"":
            Source("from memory; its half stands in the explicit paper", "medium")}),
    ),
    NOTES, data="imagenet", options={"num_classes": 1000},
)  # fmt: skip


def _retina(label: str, printed: str, backbone: str, why: dict[str, str]) -> Row:
    return Row(label, printed, layer=retina(backbone), trained=trained_retina(backbone), why=why)


COCO = Table(
    "augmented", "COCO", "RetinaNet, COCO, 640 pixels",
    (_FLOPS, _PARAMETERS, *_AP),
    (
        _retina("ResNet50", "182 33.4 36.8 54.5 39.5", "resnet50", _DETECTOR),
        _retina("SE-ResNet50", "183 35.9 36.5 54.0 39.1", "foveal_se_resnet50", _DETECTOR),
        _retina("AA-ResNet50", "182 33.1 38.2 56.5 40.7", "foveal_augmented_resnet50", _AUGMENTED),
        _retina("ResNet101", "243 52.4 38.5 56.4 41.2", "resnet101", _DETECTOR),
        _retina("AA-ResNet101", "245 51.7 39.2 57.8 41.9", "foveal_augmented_resnet101", _AUGMENTED),
    ),
    NOTES, INPUT,
)  # fmt: skip

MNASNET = Table(
    "augmented", "MnasNet", "MnasNet-A1, ImageNet",
    (_PARAMETERS, _TOP1),
    tuple(
        Row(f"{kind}MnasNet {width}", printed, why=_MNAS)
        for kind, rows in (
            ("", {"0.75": "2.9 73.3", "1.0": "3.9 75.2", "1.25": "5.3 76.7", "1.4": "6.0 77.2"}),
            ("AA-", {"0.75": "3.0 73.9", "1.0": "4.1 75.7", "1.25": "5.5 77.2", "1.4": "6.4 77.7"}),
        )
        for width, printed in rows.items()
    ),
    FAINT,
)  # fmt: skip

_WIDE = {
    "parameters": "the network of the stated depth and width has 36.5; that attention saves 0.2 of them reproduces",
    "FLOPs": "neither layout nor counting are stated; the plain network has 10.49 by the rule",
}
CIFAR100 = Table(
    "augmented", "CIFAR-100", "WRN-28-10, CIFAR-100",
    (_PARAMETERS, _FLOPS, _TOP1, _TOP5),
    (
        Row("WRN-28-10", "36.3 10.4 80.3 95.0", "foveal_wrn28_10", why={"parameters": _WIDE["parameters"]}),
        Row("GE-WRN-28-10", "- - 79.8 95.0", why={"": "model not in foveal yet: gather-excite"}),
        Row("SE-WRN-28-10", "36.5 - 81.0 95.3", why={"": "model not in foveal yet: SE in a wide ResNet"}),
        Row("AA-WRN-28-10", "36.2 10.9 81.6 95.2", "foveal_augmented_wrn28_10", why=_WIDE),
    ),
    NOTES, (3, 32, 32), "cifar100", {"num_classes": 100},
)  # fmt: skip

POSITIONS = Table(
    "augmented", "positions", "Positions of AA-ResNet50, ImageNet",
    (_TOP1, _TOP5),
    (
        Row("none", "77.5 93.7", trained={"": Trained("foveal_augmented_resnet50", "imagenet", {"positions": "none"})},
            why={"": "no name of its own: foveal_augmented_resnet50 with positions='none'"}),
        Row("2D sine", "77.5 93.7", why={"": "model not in foveal yet: sinusoids beside augmented convolutions"}),
        Row("CoordConv", "77.5 93.8", why={"": "model not in foveal yet: CoordConv"}),
        Row("relative", "77.7 93.8", "foveal_augmented_resnet50"),
    ),
    NOTES, data="imagenet",
)  # fmt: skip

RATIOS = Table(
    "augmented", "ratios", "Share of attention in ResNet50, ImageNet",
    (_PARAMETERS, _TOP1),
    tuple(
        Row(f"kappa = upsilon = {share / 100:g}", printed, f"foveal_augmented_resnet50_ratio{share}",
            sources={"parameters": Source("from memory, and the count agrees", "medium")})
        for share, printed in ((25, "24.3 77.7"), (50, "22.3 77.3"), (75, "20.7 76.7"), (100, "19.4 73.9"))
    ),
    FAINT, data="imagenet", options={"num_classes": 1000},
)  # fmt: skip

_README = Source("the authors' code: its table of results")
_NO_OTHER = {"": "model not in foveal yet"}
ECA_NET = Table(
    "augmented", "ECA-Net", "ECA-Net's own counts, in 2^20, ImageNet (copied by the explicit paper's table 3)",
    (Column("parameters", "Mi", MEBI), _TOP1),
    (
        Row("ECA-ResNet18", "11.15 -", why=_NO_OTHER),
        Row("ECA-ResNet34", "20.79 74.21", "foveal_eca_resnet34"),
        Row("ECA-ResNet50", "24.37 77.42", "foveal_eca_resnet50"),
        Row("ECA-ResNet101", "42.49 78.65", "foveal_eca_resnet101"),
        Row("ECA-ResNet152", "57.41 78.92", "foveal_eca_resnet152",
            why={"parameters": "the plain network is 57.40 and the gates are 234 parameters"}),
        Row("ECA-MobileNetV2", "3.34 72.56", why=_NO_OTHER),
    ),
    _README, data="imagenet", options={"num_classes": 1000},
)  # fmt: skip

TABLES = (IMAGENET, COCO, MNASNET, CIFAR100, POSITIONS, RATIOS, ECA_NET)
