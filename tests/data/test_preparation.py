"""What validation does to an image, as plain values that give the same image again."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from data import miniatures
from foveal.data import DataOptions, Preparation, load, load_options
from foveal.data.preparation import IMAGENET_MEAN, IMAGENET_STD
from foveal.errors import DataError, OptionError

COMMON = Preparation(16, 0.875, "bicubic", IMAGENET_MEAN, IMAGENET_STD, 3)


def picture(width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(miniatures.pixels(2, 5, (width, height))).convert(mode)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(40, 30), (30, 41), (18, 18), (5, 9)])
def test_it_is_torchvisions_resize_middle_and_normalisation(interpolation, size):
    mode = v2.InterpolationMode(interpolation)
    theirs = v2.Compose(
        [
            v2.Resize(18, interpolation=mode),
            v2.CenterCrop(16),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    ours = replace(COMMON, interpolation=interpolation)
    torch.testing.assert_close(ours(picture(*size)), theirs(picture(*size)))


def test_it_survives_json_and_gives_the_same_image():
    again = Preparation.from_record(json.loads(json.dumps(COMMON.record())))
    assert again == COMMON
    assert torch.equal(again(picture()), COMMON(picture()))


def test_a_record_that_lacks_something_is_told_what():
    record = COMMON.record()
    del record["mean"]
    with pytest.raises(
        DataError, match=r"^Preparation: channels, crop_share, .*mean, size, std are wanted, got channel"
    ):
        Preparation.from_record(record)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "1", "I;16", "F"])
def test_an_image_of_any_mode_has_the_channels_that_are_wanted(mode):
    image = picture(mode="L").convert("I").convert(mode) if mode == "I;16" else picture(mode=mode)
    assert COMMON(image).shape == (3, 16, 16)
    assert replace(COMMON, channels=1, mean=(0.5,), std=(0.5,))(image).shape == (1, 16, 16)


@pytest.mark.parametrize("size", [(30000, 1), (1, 30000)])
def test_a_ribbon_takes_no_more_memory_than_an_image(size, monkeypatch):
    resized = []
    own = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, to, *a, **k: resized.append(to) or own(self, to, *a, **k))
    assert COMMON(Image.new("RGB", size)).shape == (3, 16, 16)
    assert resized and all(max(to) <= 8 * 18 for to in resized)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"crop_share": 0.0}, "crop_share must be above 0 and at most 1"),
        ({"crop_share": 1.5}, "crop_share must be above 0 and at most 1"),
        ({"interpolation": "lanczos"}, "no interpolation 'lanczos'. Use nearest, bilinear or bicubic"),
        ({"channels": 1}, "got 1 with 3 and 3"),
    ],
)
def test_values_out_of_range_are_refused(change, told):
    with pytest.raises(OptionError, match=told):
        replace(COMMON, **change)


def test_digits_are_prepared_as_they_are_validated():
    data = load("digits")
    own = Image.fromarray((data.val.images[7, 0] * 255).round().byte().numpy())
    assert (data.prepare(own) - data.val[7][0]).abs().max() <= 1 / 255 + 1e-6


def test_the_options_decide_the_preparation(tmp_path):
    path = str(miniatures.folder(tmp_path))
    options = DataOptions(name="folder", path=path, size=24, crop_share=0.9, interpolation="bicubic")
    data = load_options(options)
    assert data.preparation == Preparation(24, 0.9, "bicubic", IMAGENET_MEAN, IMAGENET_STD, 3)
    assert torch.equal(data.val[1][0], data.prepare(Image.open(data.val.paths[1])))
