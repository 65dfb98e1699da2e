"""The images that a generator learns from: an image data set, drawn without what classifiers need."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.data import load_options
from foveal.data.images import ImageData, Split
from foveal.tasks.generation.recipe import GenerationRecipe


@dataclass(frozen=True)
class GenerationSet:
    """An image data set with the real images that generated ones are held against.

    Attributes:
        images: what is learned from, flipped at random where the recipe says so.
        reference: real images as they are.
    """

    images: ImageData
    reference: Split

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.images.name

    @property
    def fingerprint(self) -> str:
        """Changes when the images do."""
        return self.images.fingerprint

    @property
    def skipped(self) -> tuple[str, ...]:
        """What was left out."""
        return self.images.skipped

    @property
    def train(self) -> Split:
        """What is learned from."""
        return self.images.train

    @property
    def val(self) -> Split:
        """What is measured on."""
        return self.reference

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""
        return self.images.classes

    def within(self, images: Tensor) -> Tensor:
        """Images of a split, which are normalised in the data set's way, within -1 and 1 as generators make them."""
        own = self.images.preparation
        mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (own.mean, own.std))
        return torch.addcmul(2 * mean - 1, images, 2 * std)


def generation_set(recipe: GenerationRecipe) -> GenerationSet:
    """The images of a recipe.

    Raises:
        DataError: they are missing or not what they should be.
        OptionError: an option is out of range.
    """
    images = load_options(recipe.data.images(flip=True))
    if recipe.evaluation.reference == "val":
        return GenerationSet(images, images.val)
    plain = images if recipe.data.flip == 0 else load_options(recipe.data.images(flip=False))
    return GenerationSet(images, plain.train)
