"""The external paper's tables of generated images, and what both networks of every row cost."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from foveal import models
from foveal.analysis.ledger.conventions import MACS, MILLIONS
from foveal.analysis.ledger.records import COUNTED, FAINT, Column, Row, Source, Table
from foveal.analysis.ledger.tally import figure_of_network
from foveal.models.gan import GAN

_GAN = {"": "not run here: takes training, and the weights of the Inception network"}
_ANOTHER = {"": "another paper's network, not in foveal"}
_STUDIO = Source("from memory, and a third party's table agrees", "medium")
PARTS = ("generator", "discriminator")
_COUNTS = {
    f"{part}, {what}": (part, rule)
    for part in PARTS
    for what, rule in (("parameters", MILLIONS), ("FLOPs", MACS))
}  # fmt: skip
_COLUMNS = (
    *(Column(name, "G" if rule.operations else "M", rule) for name, (_, rule) in _COUNTS.items()),
    Column("FID", "", metric="fid"), Column("IS", "", metric="inception_score"),
)  # fmt: skip
_OURS = {
    "without attention": ("none", "resnet_gan"), "SAGAN": ("self", "sagan"), "EAGAN": ("external", "eagan")
}  # fmt: skip


def network(part: str, attention: Any, size: int, classes: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """One of both networks and the inputs of one image: a code and its class, or the image and its class."""
    gan, labels = _both(attention, size, classes), torch.zeros(1, dtype=torch.long)
    if part == "generator":
        return gan.generator, (torch.empty(1, gan.generator.latent), labels)
    return gan.discriminator, (torch.empty(1, gan.discriminator.in_chans, size, size), labels)


@lru_cache(maxsize=1)
def _both(attention: Any, size: int, classes: int) -> GAN:
    return models.resnet_gan(size, num_classes=classes, attention=attention)


def _row(label: str, printed: str, size: int, classes: int, faint: tuple[str, ...]) -> Row:
    if label not in _OURS:
        return Row(label, f"- - - - {printed}", why=_ANOTHER)
    attention, model = _OURS[label]
    makers = {part: partial(network, part, attention, size, classes) for part in PARTS}
    return Row(
        label, " ".join([*[COUNTED] * len(_COUNTS), printed]), model,
        computed={name: partial(figure_of_network, makers[part], rule) for name, (part, rule) in _COUNTS.items()},
        why=_GAN, sources={"": FAINT} if label in faint else {},
    )  # fmt: skip


def _gans(title: str, data: str, size: int, classes: int, rows: dict[str, str], faint: tuple[str, ...]) -> Table:
    made = tuple(_row(label, printed, size, classes, faint) for label, printed in rows.items())
    return Table("external", "GAN", f"Image generation, {title}", _COLUMNS, made, _STUDIO, data=data)


CIFAR = _gans(
    "CIFAR-10", "cifar10", 32, 10,
    {
        "DCGAN": "49.030 6.638", "LSGAN": "66.686 5.577", "WGAN-GP": "25.852 7.458", "ProjGAN": "33.830 7.539",
        "without attention": "- -", "SAGAN": "14.498 8.626", "EAGAN": "14.105 8.630",
    },
    ("SAGAN", "EAGAN"),
)  # fmt: skip
TINY = _gans(
    "Tiny ImageNet", "tinyimagenet", 64, 200,
    {
        "DCGAN": "91.625 5.640", "LSGAN": "90.008 5.381", "ProjGAN": "89.175 6.224", "without attention": "- -",
        "SAGAN": "51.414 8.342", "EAGAN": "48.374 8.673",
    },
    ("EAGAN",),
)  # fmt: skip

TABLES = (CIFAR, TINY)
