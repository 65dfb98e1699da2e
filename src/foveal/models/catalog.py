"""The table of the models of the papers: each a timm or torchvision backbone plus grafts, registered in timm.

Names are ``foveal_``, the attention, the backbone, and what differs from the paper's main model, each in the words of
the registry of layers: ``foveal_explicit_resnet50_uniform``. Without attention the second part is missing. Networks
that their paper names keep that name (``foveal_eamlp_14``). Where a paper's text and its counts disagree, the plain
name reproduces the counts, and ``_literal`` follows the text.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        name: in timm.
        paper: first author and year.
        what: the model in one line, and which part of the paper it reproduces.
        parameters: of the model with its own number of classes, as the test counts them.
        build: ``build(**options)`` with at least ``num_classes`` and ``in_chans``; returns the whole classifier.
        options: what this row passes to ``build``; a caller's own override them.
        classes: of the paper's data set.
        size: rows and columns of the paper's images.
        first_conv: name of the layer that takes the image, so that timm's tools find it.
        classifier: name of the last layer.
        feature_cfg: of timm's feature extraction.
    """

    name: str
    paper: str
    what: str
    parameters: int
    build: Callable[..., nn.Module]
    options: dict[str, Any] = field(default_factory=dict)
    classes: int = 1000
    size: tuple[int, int] = (224, 224)
    first_conv: str | None = "conv1"
    classifier: str = "fc"
    feature_cfg: dict[str, Any] = field(default_factory=dict)


CATALOG: dict[str, Row] = {}


def register(*rows: Row) -> None:
    """Add rows to the table and to timm."""
    for row in rows:
        if row.name in CATALOG:
            raise ValueError(f"catalog: {row.name} is there twice.")
        CATALOG[row.name] = row
        entry = _entry(row)
        # timm finds what it shows about a model in the module of its function, and lists the function there.
        module = vars(sys.modules[entry.__module__])
        module.setdefault("default_cfgs", {}).update(_defaults(row))
        module[row.name] = entry
        register_model(entry)


def _entry(row: Row) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **options: Any) -> nn.Module:
        given = {"num_classes": row.classes, **row.options, **options}
        features = dict(row.feature_cfg)
        return cast(nn.Module, build_model_with_cfg(row.build, row.name, pretrained, feature_cfg=features, **given))

    create.__name__, create.__doc__, create.__module__ = row.name, row.what, row.build.__module__
    return create


def _defaults(row: Row) -> Any:
    shown = {
        "input_size": (3, *row.size), "num_classes": row.classes, "crop_pct": 0.875, "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "first_conv": row.first_conv,
        "classifier": row.classifier, "paper_name": row.paper,
    }  # fmt: skip
    return generate_default_cfgs({row.name: shown})
