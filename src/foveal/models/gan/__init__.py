"""Networks that generate images, and the losses that they are trained with."""

from foveal.models.gan.attention import ScaledAttention
from foveal.models.gan.layout import LAYOUTS, Layout
from foveal.models.gan.losses import discriminator_hinge, generator_hinge
from foveal.models.gan.networks import GAN, Discriminator, Generator, eagan, resnet_gan, sagan

__all__ = [
    "GAN",
    "LAYOUTS",
    "Discriminator",
    "Generator",
    "Layout",
    "ScaledAttention",
    "discriminator_hinge",
    "eagan",
    "generator_hinge",
    "resnet_gan",
    "sagan",
]
