"""What training does to one image, by torchvision's and timm's transforms: a function of the image and a seed alone.

Those transforms draw from the generators of torch, Python and NumPy. They are seeded for one image and put back, so
training sees the same images whatever else draws, and nothing else sees that images were drawn.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from foveal.data.options import Augmentation
from foveal.data.preparation import Preparation, cut
from foveal.errors import OptionError

if TYPE_CHECKING:
    from PIL.Image import Image


SECTION = r"(m|n|p|mstd|mmax|inc|w|d|a|b)\d+(\.\d+)?|t[a-z0-9]+"  # a setting in timm's words, as m9 in rand-m9

OF_A_CROP = ("scale", "ratio", "padding", "flip")  # what a data set's own crop decides


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Seed the generators of torch (CPU), Python and NumPy, and put them back as they were."""
    # torch.manual_seed would seed those of every device too, which nobody puts back.
    states = torch.default_generator.get_state(), random.getstate(), np.random.get_state()
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        torch.default_generator.set_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


class Augment:
    """Draws what a model is trained on from an image.

    Args:
        options: with ``crop`` one of resized, padded and none.
        preparation: what validation does; its size, interpolation, mean and deviation are used.

    Raises:
        OptionError: an option is out of range, or timm has no such policy.
    """

    def __init__(self, options: Augmentation, preparation: Preparation) -> None:
        check(options)
        self.options, self.preparation = options, preparation
        self._drawn: tuple[Callable[[Any], Any], Callable[[Tensor], Tensor]] | None = None
        _policy(options, preparation)  # a policy that does not exist is said before the first image

    def __call__(self, image: Image, seed: int) -> Tensor:
        """An RGB image as ``(channels, size, size)``, normalised; the same for the same seed."""
        # Made when first used: workers that are started anew get plain values.
        self._drawn = self._drawn or (_on_image(self.options, self.preparation), _on_tensor(self.options))
        on_image, on_tensor = self._drawn
        with drawn_from(seed):
            picture = self.preparation.tensor(on_image(image))
            return on_tensor(self.preparation.normalised(picture))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_drawn": None}


def _on_image(options: Augmentation, preparation: Preparation) -> Callable[[Any], Any]:
    from torchvision.transforms import v2

    mode, size = v2.InterpolationMode(preparation.interpolation), preparation.size
    steps: list[Any] = []
    if options.crop == "resized":
        steps.append(v2.RandomResizedCrop(size, scale=options.scale, ratio=options.ratio, interpolation=mode))
    elif options.crop == "padded":
        steps += [_Short(size, mode), v2.RandomCrop(size, padding=options.padding)]
    else:
        steps.append(preparation.middle)
    if options.flip:
        steps.append(v2.RandomHorizontalFlip(options.flip))
    if options.policy is not None:
        steps.append(_policy(options, preparation))
    if options.color_jitter:
        steps.append(v2.ColorJitter(*(options.color_jitter,) * 3))
    return v2.Compose(steps)


class _Short:
    """Resize the shorter side, where it is not so already."""

    def __init__(self, size: int, mode: Any) -> None:
        from torchvision.transforms import v2

        self.resize = v2.Resize(size, interpolation=mode)

    def __call__(self, image: Image) -> Image:
        resized: Image = self.resize(cut(image))
        return resized


def _on_tensor(options: Augmentation) -> Callable[[Tensor], Tensor]:
    if not options.erasing:
        return lambda picture: picture
    from timm.data.random_erasing import RandomErasing

    erase: Callable[[Tensor], Tensor] = RandomErasing(options.erasing, mode=options.erasing_mode, device="cpu")
    return erase


def _policy(options: Augmentation, preparation: Preparation) -> Any:
    """timm's transform of a policy's name, set up as timm sets it up for training."""
    if options.policy is None:
        return None
    from timm.data.auto_augment import augment_and_mix_transform, auto_augment_transform, rand_augment_transform

    mean = preparation.mean if preparation.channels == 3 else preparation.mean * 3
    shift = int(preparation.size * 0.45)
    settings = {"translate_const": shift, "img_mean": tuple(min(255, round(255 * value)) for value in mean)}
    resample = {"nearest": 0, "bilinear": 2, "bicubic": 3}  # Pillow's numbers
    settings["interpolation"] = resample[preparation.interpolation]
    name = options.policy
    try:
        # timm passes over what it does not understand when no number follows.
        if odd := [part for part in name.split("-")[1:] if not re.fullmatch(SECTION, part)]:
            raise ValueError(f"{odd[0]} is no setting")
        if name.startswith("rand"):
            return rand_augment_transform(name, settings)
        if name.startswith("augmix"):
            return augment_and_mix_transform(name, {**settings, "translate_pct": 0.3})
        return auto_augment_transform(name, settings)
    # timm tells unknown names and settings by assertions, KeyErrors and ValueErrors.
    except Exception as error:
        raise OptionError(
            f"augmentation: timm has no policy {name!r} ({type(error).__name__}: {error}). Use rand-m9-mstd0.5-inc1, "
            "original or v0, say."
        ) from error


def check(options: Augmentation) -> None:
    """Raise OptionError where a value is out of range."""
    for name in ("flip", "erasing", "switch"):
        value = getattr(options, name)
        if not 0 <= value <= 1:
            raise OptionError(f"augmentation: {name} must be from 0 to 1, got {value}. It is a probability.")
    for name in ("mixup", "cutmix", "color_jitter", "padding"):
        value = getattr(options, name)
        if not value >= 0:
            raise OptionError(f"augmentation: {name} must not be negative, got {value}. Use 0 for none.")
    for name, most in (("scale", 1.0), ("ratio", float("inf"))):
        low, high = getattr(options, name)
        if not 0 < low <= high <= most:
            raise OptionError(f"augmentation: {name} must grow and be above 0, got {low} to {high}. Turn it round.")
    if options.crop not in ("own", "resized", "padded", "none"):
        raise OptionError(f"augmentation: there is no crop {options.crop!r}. Use own, resized, padded or none.")
    if options.crop == "own":
        unlike = [name for name in OF_A_CROP if getattr(options, name) != getattr(Augmentation(), name)]
        if unlike:
            raise OptionError(
                f"augmentation: crop own brings its own {unlike[0]}, got {getattr(options, unlike[0])!r}. Name a crop "
                "beside it: resized, padded or none."
            )
    if options.erasing_mode not in ("const", "rand", "pixel"):
        raise OptionError(f"augmentation: there is no erasing_mode {options.erasing_mode!r}. Use const, rand or pixel.")
