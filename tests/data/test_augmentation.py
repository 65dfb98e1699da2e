"""What training draws: torchvision's and timm's transforms, from (seed, epoch, index) and nothing else."""

import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from data import miniatures
from foveal.data import Augmentation, DataOptions, load_options
from foveal.data.augmentation import Augment, drawn_from
from foveal.data.preparation import IMAGENET_MEAN, IMAGENET_STD, Preparation
from foveal.errors import OptionError

PREPARATION = Preparation(24, 0.875, "bilinear", IMAGENET_MEAN, IMAGENET_STD, 3)
EVERYTHING = [
    Augmentation(crop="resized"),
    Augmentation(crop="padded", padding=3),
    Augmentation(crop="none", color_jitter=0.4),
    Augmentation(crop="resized", policy="rand-m9-mstd0.5-inc1"),
    Augmentation(crop="resized", policy="original"),
    Augmentation(crop="resized", policy="v0"),
    Augmentation(crop="resized", policy="augmix-m5-w4-d2"),
    Augmentation(crop="none", erasing=1.0, erasing_mode="const"),
    Augmentation(crop="none", erasing=1.0, erasing_mode="rand"),
    Augmentation(crop="padded", policy="rand-m9", color_jitter=0.4, erasing=0.5),
]


def picture(seed: int = 0, size: tuple[int, int] = (48, 40)) -> Image.Image:
    return Image.fromarray(miniatures.pixels(1, seed, size))


def states() -> tuple[bytes, object, bytes]:
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), np.random.get_state()[1].tobytes()


@pytest.mark.parametrize("options", EVERYTHING, ids=lambda options: f"{options.crop}-{options.policy}")
def test_an_image_depends_on_its_seed_alone_and_no_generator_moves(options):
    augment, seeds = Augment(options, PREPARATION), range(40, 60)
    first = [augment(picture(), seed) for seed in seeds]
    torch.rand(3), random.random(), np.random.rand(2)
    before = states()
    again = [Augment(options, PREPARATION)(picture(), seed) for seed in reversed(seeds)][::-1]
    assert states() == before
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert len({image.numpy().tobytes() for image in first}) > 10
    assert all(image.shape == (3, 24, 24) and image.isfinite().all() for image in first)


def test_generators_are_put_back_after_an_error():
    before = states()

    def draw() -> None:
        with drawn_from(7):
            raise ZeroDivisionError(torch.rand(1), random.random(), np.random.rand())

    with pytest.raises(ZeroDivisionError):
        draw()
    assert states() == before


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_draw_what_one_process_draws(tmp_path, workers):
    augmentation = Augmentation(policy="rand-m9-mstd0.5-inc1", erasing=0.5)
    options = DataOptions(name="folder", path=str(miniatures.folder(tmp_path)), size=16, augmentation=augmentation)
    split = load_options(options).train
    split.at(4, 2)
    order = split.order(4, 2).tolist()
    here = torch.stack([split[index][0] for index in order])
    loader = DataLoader(split, batch_sampler=[order[n : n + 2] for n in range(0, len(order), 2)], num_workers=workers)
    there = torch.cat([images for images, _ in loader])
    assert torch.equal(here, there)


def test_a_split_can_be_sent_to_a_process_that_is_started_anew(tmp_path):
    augmentation = Augmentation(policy="rand-m9", erasing=0.5)
    split = load_options(
        DataOptions(name="folder", path=str(miniatures.folder(tmp_path)), size=16, augmentation=augmentation)
    ).train
    split.at(1, 1)
    first = split[3][0]
    assert torch.equal(pickle.loads(pickle.dumps(split))[3][0], first)


def test_a_flip_of_nought_and_of_one():
    straight, turned = (Augment(Augmentation(crop="none", flip=flip), PREPARATION)(picture(), 3) for flip in (0.0, 1.0))
    assert torch.equal(straight, PREPARATION(picture()))
    assert torch.equal(turned, straight.flip(-1))


def test_a_resized_crop_stays_within_its_share():
    whole = Augment(Augmentation(crop="resized", scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0), PREPARATION)
    square = picture(size=(40, 40))
    expected = Preparation(24, 1.0, "bilinear", IMAGENET_MEAN, IMAGENET_STD, 3)(square)
    torch.testing.assert_close(whole(square, 5), expected)


@pytest.mark.parametrize(("mode", "values"), [("const", 1), ("rand", 1), ("pixel", 20)])
def test_an_erased_rectangle_holds_what_was_asked_for(mode, values):
    erased = Augment(Augmentation(crop="none", flip=0.0, erasing=1.0, erasing_mode=mode), PREPARATION)(picture(), 11)
    plain = PREPARATION(picture())
    changed = (erased != plain).any(0)
    assert 0.01 < changed.float().mean() < 0.4
    inside = erased[0][changed]
    assert len(inside.unique()) >= values if mode == "pixel" else len(inside.unique()) == values
    assert mode != "const" or not inside.any()


def test_own_is_what_the_data_is_made_for_and_the_rest_still_counts(tmp_path):
    path = str(miniatures.imagenet(tmp_path))

    def made(**changes):
        augmentation = Augmentation(**changes)
        return load_options(DataOptions(name="imagenet", path=path, size=16, augmentation=augmentation)).train

    own, named = made(), made(crop="resized", scale=(0.08, 1.0), flip=0.5)
    assert torch.equal(own[2][0], named[2][0])
    assert not torch.equal(own[2][0], made(erasing=1.0)[2][0])


def test_shipped_images_are_drawn_as_asked():
    plain = load_options(DataOptions(name="digits"))
    drawn = load_options(DataOptions(name="digits", augmentation=Augmentation(crop="padded", padding=2, erasing=1.0)))
    assert drawn.train[0][0].shape == plain.train[0][0].shape == (1, plain.size, plain.size)
    assert not torch.equal(drawn.train[0][0], plain.train[0][0])
    assert list(drawn.train.labels) == list(plain.train.labels)
    assert (drawn.val[0][0] - plain.val[0][0]).abs().max() < 1 / 254
    assert load_options(DataOptions(name="digits", augmentation=Augmentation(mixup=0.8))).train.shift == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"policy": "rand-m9-q3"}, r"timm has no policy 'rand-m9-q3' .*q3.* Use rand-m9-mstd0.5-inc1, original"),
        ({"policy": "rand-mnine"}, r"timm has no policy 'rand-mnine'"),
        ({"policy": "cifar"}, r"timm has no policy 'cifar'"),
        ({"flip": 1.5}, r"flip must be from 0 to 1, got 1.5"),
        ({"mixup": -1.0}, r"mixup must not be negative, got -1.0"),
        ({"crop": "resized", "scale": (0.5, 0.1)}, r"scale must grow and be above 0, got 0.5 to 0.1"),
        ({"crop": "middle"}, r"no crop 'middle'. Use own, resized, padded or none"),
        ({"erasing_mode": "noise"}, r"no erasing_mode 'noise'"),
        ({"flip": 0.0}, r"crop own brings its own flip, got 0.0. Name a crop beside it: resized, padded or none"),
        ({"scale": (0.5, 1.0)}, r"crop own brings its own scale, got \(0.5, 1.0\)"),
    ],
)
def test_options_out_of_range_are_refused_before_the_first_image(tmp_path, changes, told):
    options = DataOptions(name="folder", path=str(miniatures.folder(tmp_path)), augmentation=Augmentation(**changes))
    with pytest.raises(OptionError, match=told):
        load_options(options)
