"""SAGAN, EAGAN and the same without attention: residual generator and discriminator of StudioGAN's layout.

Papers: Zhang et al., Self-Attention Generative Adversarial Networks (2019); Guo et al., Beyond Self-attention (2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from foveal.errors import ShapeError
from foveal.functional.inputs import check_tensor
from foveal.layers.base import check_sizes
from foveal.models.gan.attention import Attention, attention
from foveal.models.gan.blocks import NORM_EPS, DiscriminatorBlock, GeneratorBlock, convolution, started
from foveal.models.gan.layout import BOTTOM, Layout, layout_of
from foveal.models.labels import check_labels


class Generator(nn.Module):
    """Codes ``(batch, latent)`` and classes ``(batch,)`` to images ``(batch, in_chans, size, size)`` within -1 and 1.

    Args:
        layout: widths and places.
        width: what the layout multiplies; 64 in the papers.
        num_classes: 0 takes no classes.
        latent: length of a code, which is drawn from N(0, 1); 128 in the papers.
        in_chans: channels of the images.
        attention_kind: ``"none"``, ``"self"`` or ``"external"``.
        slots: of external attention.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 64,
        num_classes: int = 10,
        latent: int = 128,
        in_chans: int = 3,
        attention_kind: Attention = "self",
        slots: int = 64,
    ) -> None:
        super().__init__()
        check_sizes("Generator", width=width, latent=latent, in_chans=in_chans)
        self.latent, self.num_classes, self.size = latent, num_classes, layout.size
        widths = [width * times for times in layout.generator]
        self.linear = started(nn.Linear(latent, widths[0] * BOTTOM * BOTTOM))
        self.blocks = nn.ModuleList(GeneratorBlock(a, b, num_classes) for a, b in pairwise(widths))
        self.attention_after = layout.generator_at
        self.attention = attention(attention_kind, widths[layout.generator_at], slots=slots)
        self.norm = nn.BatchNorm2d(widths[-1], eps=NORM_EPS)
        self.conv = convolution(widths[-1], in_chans)

    def example_inputs(self, batch: int = 1, size: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """Codes, and classes where it takes them; the size of the images is the layout's."""
        codes = torch.empty(batch, self.latent)
        return (codes, torch.zeros(batch, dtype=torch.long)) if self.num_classes else (codes,)

    def forward(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        check_tensor("Generator", "the codes", codes)
        if codes.dim() != 2 or codes.shape[1] != self.latent:
            raise ShapeError(f"Generator: codes must be (batch, {self.latent}), got {tuple(codes.shape)}.")
        labels = check_labels("Generator", labels, batch=codes.shape[0], classes=self.num_classes)
        x: Tensor = self.linear(codes).unflatten(1, (-1, BOTTOM, BOTTOM))
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, labels)
            x = self.attention(x) if number == self.attention_after else x
        out: Tensor = self.conv(self.norm(x).relu())
        return out.tanh()


class Discriminator(nn.Module):
    """Images ``(batch, in_chans, size, size)`` and classes ``(batch,)`` to scores ``(batch,)``, high for real ones.

    The score is a linear map of the features summed over the map, and with classes the features' product with the
    embedding of the class: a projection discriminator. The arguments are those of ``Generator``.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 64,
        num_classes: int = 10,
        in_chans: int = 3,
        attention_kind: Attention = "self",
        slots: int = 64,
    ) -> None:
        super().__init__()
        check_sizes("Discriminator", width=width, in_chans=in_chans)
        self.in_chans, self.num_classes, self.size = in_chans, num_classes, layout.size
        widths = [in_chans, *(width * times for times in layout.discriminator)]
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(a, b, halve=halve, first=number == 0)
            for number, ((a, b), halve) in enumerate(zip(pairwise(widths), layout.halves, strict=True))
        )
        self.attention_after = layout.discriminator_at
        self.attention = attention(attention_kind, widths[layout.discriminator_at], slots=slots)
        self.linear = started(nn.Linear(widths[-1], 1))
        self.embedding = started(nn.Embedding(num_classes, widths[-1])) if num_classes else None

    def example_inputs(self, batch: int = 1, size: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """Images, of the layout's size where ``size`` is None, and classes where it takes them."""
        images = torch.empty(batch, self.in_chans, *(size or (self.size, self.size)))
        return (images, torch.zeros(batch, dtype=torch.long)) if self.num_classes else (images,)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        check_tensor("Discriminator", "the images", images)
        if images.shape[1:] != (self.in_chans, self.size, self.size):
            raise ShapeError(
                f"Discriminator: images must be (batch, {self.in_chans}, {self.size}, {self.size}), "
                f"got {tuple(images.shape)}."
            )
        labels = check_labels("Discriminator", labels, batch=images.shape[0], classes=self.num_classes)
        x = images
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            x = self.attention(x) if number == self.attention_after else x
        features = x.relu().sum((2, 3))
        score: Tensor = self.linear(features).squeeze(1)
        return score if self.embedding is None else score + (self.embedding(labels) * features).sum(1)


class GAN(nn.Module):
    """A ``generator`` and a ``discriminator`` that were made for each other; has no forward of its own."""

    def __init__(self, generator: Generator, discriminator: Discriminator) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator


def resnet_gan(
    size: int | Layout = 32,
    *,
    num_classes: int = 10,
    attention: Attention = "none",
    slots: int = 64,
    width: int = 64,
    latent: int = 128,
    in_chans: int = 3,
) -> GAN:
    """Both networks for images of 8, 16, 32 or 64 pixels, or of a layout of your own.

    Args:
        size: rows and columns of the images, or a ``Layout``.
        num_classes: of the images; 0 takes no classes.
        attention: ``"none"``, ``"self"`` (SAGAN) or ``"external"`` (EAGAN), in both networks.
        slots: rows of the memories of external attention.
        width: what the layout multiplies.
        latent: length of a code.
        in_chans: channels of the images.

    Raises:
        OptionError: there is no layout for the size, or a choice is unknown.
    """
    layout = layout_of(size)
    made: dict[str, Any] = {
        "width": width, "num_classes": num_classes, "in_chans": in_chans, "attention_kind": attention, "slots": slots
    }  # fmt: skip
    return GAN(Generator(layout, latent=latent, **made), Discriminator(layout, **made))


def sagan(size: int | Layout = 32, **options: Any) -> GAN:
    """``resnet_gan`` with self-attention."""
    return resnet_gan(size, attention="self", **options)


def eagan(size: int | Layout = 32, **options: Any) -> GAN:
    """``resnet_gan`` with external attention."""
    return resnet_gan(size, attention="external", **options)
