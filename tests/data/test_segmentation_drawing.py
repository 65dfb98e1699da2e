"""What training draws of labelled images: a function of seed, epoch and index."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from data import segmentation_miniatures as miniatures
from data.segmentation_miniatures import load
from foveal.data.preparation import Normalisation
from foveal.data.samples import mix
from foveal.data.segmentation.augmentation import Draw, scale_factor
from foveal.data.segmentation.options import SegmentationAugmentation
from foveal.errors import OptionError
from foveal.tasks.reading import Reader

PLAIN = Normalisation((0.5, 0.25, 0.75), (0.5, 0.5, 0.25))


def draw(**options):
    return Draw(SegmentationAugmentation(**{"crop": (20, 30), "flip": 0.0, **options}), PLAIN)


def example(rows=40, columns=60):
    marked = miniatures.labels(3, [0, 1, 2, 3], size=(rows, columns), border=255)
    return miniatures.photograph(marked, 3), marked


def test_an_item_follows_from_its_seed_epoch_and_index_alone(tmp_path):
    data = load("voc", miniatures.voc(tmp_path), augmentation=SegmentationAugmentation(crop=(24, 24), color_jitter=0.3))
    split = data.train
    split.at(1, 2)
    random.seed(0)
    first_time = split[3]
    random.seed(1)
    torch.rand(3)
    split.at(9, 9)
    _ = split[0]
    split.at(1, 2)
    again = split.batch([3])
    assert torch.equal(first_time[0], again[0][0]) and torch.equal(first_time[1], again[1][0])
    others = [(2, 2, 3), (1, 3, 3)]
    for seed, epoch, index in others:
        split.at(seed, epoch)
        assert not torch.equal(split[index][0], first_time[0])


def test_a_window_is_that_of_the_whole_image_resized():
    image, marked = example()
    for scale in (0.5, 1.0, 1.7):
        x, y = draw(scale=(scale, scale))(image, marked, 11)
        size = (round(60 * scale), round(40 * scale))
        whole = PLAIN.of(image.resize(size, Image.Resampling.BILINEAR))
        labels = torch.from_numpy(np.array(Image.fromarray(marked).resize(size, Image.Resampling.NEAREST)))
        found = [
            (top, left)
            for top in range(max(size[1] - 20, 0) + 1)
            for left in range(max(size[0] - 30, 0) + 1)
            if (whole[:, top : top + 20, left : left + 30] - x[:, : size[1], : size[0]]).abs().max() < 0.04
        ]
        assert len(found) == 1
        top, left = found[0]
        same = labels[top : top + 20, left : left + 30] == y[: size[1], : size[0]]
        assert same.float().mean() > 0.99


def test_what_a_window_lacks_is_the_mean_colour_and_ignored():
    image, marked = example()
    x, y = draw(scale=(0.25, 0.25))(image, marked, 0)
    assert x.shape == (3, 20, 30) and y.shape == (20, 30)
    assert (y[10:] == 255).all() and (y[:, 15:] == 255).all() and (y[:10, :15] != 255).any()
    assert (x[:, 10:] == 0).all() and (x[:, :, 15:] == 0).all()


def test_images_and_labels_are_mirrored_together():
    image, marked = example()
    plain, mirrored = (draw(flip=flip)(image, marked, 4) for flip in (0.0, 1.0))
    assert torch.equal(plain[0].flip(-1), mirrored[0]) and torch.equal(plain[1].flip(-1), mirrored[1])


def test_factors_are_a_step_apart_from_the_least_to_the_largest():
    drawn = {round(scale_factor(SegmentationAugmentation(), random.Random(seed)), 6) for seed in range(400)}
    assert drawn == {round(0.5 + 0.1 * n, 6) for n in range(16)}
    anywhere = [scale_factor(SegmentationAugmentation(scale_step=0), random.Random(seed)) for seed in range(50)]
    assert 0.5 <= min(anywhere) < max(anywhere) <= 2.0 and len(set(anywhere)) == 50


def test_colours_and_blur_change_the_image_alone():
    image, marked = example()
    plain, *others = (draw(scale=(1, 1), **o)(image, marked, 8) for o in ({}, {"color_jitter": 0.5}, {"blur": 1.0}))
    for x, y in others:
        assert torch.equal(y, plain[1]) and not torch.equal(x, plain[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crop": (0, 3)}, "crop must be rows and columns of 1 to 16384, got (0, 3)"),
        ({"scale": (2.0, 0.5)}, "scale must rise from above 0 to at most 100, got (2.0, 0.5)"),
        ({"scale_step": -1.0}, "scale_step must be at least 0"),
        ({"scale_step": 1.6}, "scale_step must be at most 1.5, from the least scale to the largest, got 1.6"),
        ({"scale_step": float("inf")}, "scale_step must be at most 1.5"),
        ({"flip": 1.5}, "flip must be from 0 to 1, got 1.5"),
        ({"color_jitter": -0.1}, "color_jitter must be from 0 to 1"),
    ],
)
def test_options_out_of_range_are_told(options, words):
    with pytest.raises(OptionError) as told:
        draw(**options)
    assert words in str(told.value)


def test_reading_by_a_worker_gives_the_same(tmp_path):
    data = load("voc", miniatures.voc(tmp_path), augmentation=SegmentationAugmentation(crop=(24, 24)))
    chosen = [[2, 0], [1, 3]]
    here, there = (list(Reader(workers).read(data.train, 5, 3, chosen)) for workers in (0, 1))
    for (x, y), (other_x, other_y) in zip(here, there, strict=True):
        assert torch.equal(x, other_x) and torch.equal(y, other_y)


def test_an_item_of_an_epoch_has_a_seed_of_its_own():
    assert len({mix(seed, epoch, index, 2) for seed in range(3) for epoch in range(5) for index in range(40)}) == 600
