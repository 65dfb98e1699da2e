"""Mixup and cutmix: the labels say exactly how much of whom an image holds."""

import random

import numpy as np
import pytest
import torch

from foveal.data import Augmentation, Blend
from foveal.errors import OptionError

CLASSES = 7


def batch(count: int = 8, size: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Images that are their number everywhere, so what an image holds of another can be read off."""
    labels = torch.arange(count) % CLASSES
    return torch.arange(1.0, count + 1)[:, None, None, None].expand(count, 3, size, size).clone(), labels


def shares(soft: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return soft[torch.arange(len(labels)), labels]


@pytest.mark.parametrize("step", range(5))
def test_mixup_mixes_labels_as_it_mixes_neighbours(step):
    images, labels = batch()
    mixed, soft = Blend(Augmentation(mixup=0.8), CLASSES)(images, labels, 0, 1, step)
    share = shares(soft, labels)
    partner = torch.arange(8) ^ 1
    expected = share[:, None, None, None] * images + (1 - share)[:, None, None, None] * images[partner]
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(soft.sum(1), torch.ones(8))
    assert share.unique().numel() == 1


@pytest.mark.parametrize("step", range(5))
def test_cutmix_gives_labels_the_share_of_pixels(step):
    images, labels = batch()
    mixed, soft = Blend(Augmentation(cutmix=1.0), CLASSES)(images, labels, 0, 1, step)
    own = (mixed == images).all(1).float().mean((1, 2))
    torch.testing.assert_close(shares(soft, labels), own)
    partner = torch.arange(8) ^ 1
    assert ((mixed == images) | (mixed == images[partner])).all()


def test_both_are_drawn_as_often_as_switch_says():
    images, labels = batch()
    blend = Blend(Augmentation(mixup=1.0, cutmix=1.0, switch=0.25), CLASSES)
    cut = sum(bool((blend(images, labels, 0, 0, n)[0] % 1 == 0).all()) for n in range(200))
    assert 30 < cut < 72


def test_it_depends_on_seed_epoch_and_step_alone_and_moves_no_generator():
    images, labels = batch()
    blend = Blend(Augmentation(mixup=0.8, cutmix=1.0), CLASSES)
    first = blend(images, labels, 3, 2, 1)
    torch.rand(4), random.random(), np.random.rand()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    again = Blend(Augmentation(mixup=0.8, cutmix=1.0), CLASSES)(images, labels, 3, 2, 1)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()
    others = [blend(images, labels, *moment) for moment in ((4, 2, 1), (3, 1, 1), (3, 2, 2))]
    assert not any(torch.equal(first[0], images) for images, _ in others)


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("options", [Augmentation(mixup=0.8), Augmentation(cutmix=1.0)])
def test_the_parts_of_a_batch_are_blended_as_the_whole(parts, options):
    images, labels = batch(16)
    images = images + torch.rand(16, 3, 12, 12)
    blend = Blend(options, CLASSES)
    whole = blend(images, labels, 0, 0, 5)
    apart = [blend(i, k, 0, 0, 5) for i, k in zip(images.chunk(parts), labels.chunk(parts), strict=True)]
    for n in (0, 1):
        assert torch.equal(torch.cat([part[n] for part in apart]), whole[n])


def test_the_arguments_stay_and_an_odd_last_one_is_left_alone():
    images, labels = batch(5)
    kept = images.clone()
    mixed, soft = Blend(Augmentation(mixup=0.8), CLASSES)(images, labels, 0, 0, 0)
    assert torch.equal(images, kept)
    assert torch.equal(mixed[4], images[4]) and soft[4].max() == 1
    assert not torch.equal(mixed[:4], images[:4])


def test_nothing_to_blend_gives_hard_labels():
    images, labels = batch(3)
    blend = Blend(Augmentation(), CLASSES)
    assert not blend.blends
    mixed, soft = blend(images, labels, 0, 0, 0)
    assert mixed is images and torch.equal(soft.argmax(1), labels) and soft.sum() == 3


def test_channels_last_and_half_precision_stay():
    images, labels = batch()
    images = images.bfloat16().contiguous(memory_format=torch.channels_last)
    mixed, _ = Blend(Augmentation(mixup=0.8), CLASSES)(images, labels, 0, 0, 0)
    assert mixed.dtype == torch.bfloat16 and mixed.is_contiguous(memory_format=torch.channels_last)


def test_a_negative_alpha_is_refused():
    with pytest.raises(OptionError, match=r"cutmix must not be negative, got -0.5. Use 0 for none"):
        Blend(Augmentation(cutmix=-0.5), CLASSES)
