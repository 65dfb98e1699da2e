"""The networks of the catalog for the suite: every row as it is, and of every family a small member."""

from unittest import mock

import timm
import torch
from timm.models.resnet import BasicBlock, Bottleneck

import foveal.models  # noqa: F401  registers them
from foveal.models import resnets
from foveal.models.catalog import CATALOG

ONE = (1, 1, 1, 1)
# A member of every family and what makes it small; together they hold every layer and every backbone of the catalog.
MEMBERS = {
    "foveal_local_resnet26": {"layers": ONE, "groups": (2, 4)},
    "foveal_local_resnet50_absolute_positions": {"layers": ONE, "groups": (3, 4)},
    "foveal_local_resnet26_attention_stem": {"layers": ONE, "groups": (4,)},
    "foveal_efficient_resnet50_res12": {},
    "foveal_nonlocal_resnet50_res12": {},
    "foveal_se_resnet50": {},
    "foveal_eca_resnet50": {},
    "foveal_cbam_resnet34": {},
    "foveal_explicit_resnet50_cifar_with_content": {},
    "foveal_explicit_mobilenetv2_100": {"widest": 144},
    "foveal_augmented_resnet50": {},
    "foveal_augmented_wrn28_10": {"depth": 10, "width": 2},
    "foveal_eamlp_7": {"depth": 1, "width": 32},
}
# Rows and columns of the images: as few as the strides leave something of, unequal, and one of them odd.
LARGE, CIFAR = (33, 40), (9, 12)


def image_size(name):
    """Of the suite's images for a row."""
    return LARGE if CATALOG[name].size[0] > 64 else CIFAR


def images(name, batch=2, size=None, channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, *(size or image_size(name)), generator=generator)


def built(name, **options):
    """The network, with nothing in it zero that would hide what it multiplies."""
    torch.manual_seed(0)
    model = timm.create_model(name, **{"num_classes": 5, **options})
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def on_meta(name, **options):
    """The network without numbers: shapes and counts cost nothing."""
    with torch.device("meta"):
        return timm.create_model(name, **options)


def small_member(name):
    """The small member of a family, residual networks with one block a stage."""
    blocks = {34: (BasicBlock, ONE), 50: (Bottleneck, ONE)}
    with mock.patch.dict(resnets.DEPTHS, blocks):
        return built(name, **MEMBERS[name])
