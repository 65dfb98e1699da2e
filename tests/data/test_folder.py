"""Folders of images: what is read, what is skipped by name, and what is said of folders that cannot be used."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.data import load
from foveal.data.picture import UnreadableError, read_picture
from foveal.errors import DataError, OptionError


def photo(path: Path, seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (20, 14)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label in ("cat", "dog"):
        for n in range(10):
            photo(tmp_path / label / f"{n}.png", n)
    return tmp_path


def test_one_folder_is_split_in_every_class_and_always_alike(photos):
    data = load(str(photos), size=16)
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.val)) == (16, 4)
    assert sorted(data.val.labels) == [0, 0, 1, 1]
    assert not set(data.train.paths) & set(data.val.paths)
    assert load(str(photos), size=16).val.paths == data.val.paths


def test_train_and_val_are_taken_as_they_are(tmp_path):
    for side, count in (("train", 3), ("val", 2)):
        for label in ("a", "b"):
            for n in range(count):
                photo(tmp_path / side / label / "deep" / f"{n}.jpg", n)
    data = load(str(tmp_path), size=16)
    assert (len(data.train), len(data.val)) == (6, 4)
    assert data.train[0][0].shape == (3, 16, 16)


def test_a_random_crop_depends_on_seed_epoch_and_index_alone(photos):
    split = load(str(photos), size=16).train
    split.at(0, 1)
    first = split[3][0]
    torch.rand(5)
    before = torch.get_rng_state()
    assert torch.equal(split[3][0], first)
    assert torch.equal(torch.get_rng_state(), before)
    split.at(0, 2)
    assert not torch.equal(split[3][0], first)


def test_a_changed_image_changes_the_fingerprint(photos):
    before = load(str(photos), size=16).fingerprint
    photo(photos / "cat" / "3.png", 77, size=(30, 30))
    assert load(str(photos), size=16).fingerprint != before


def test_unreadable_images_are_named_and_left_out(photos):
    (photos / "cat" / "empty.png").touch()
    (photos / "cat" / "words.jpg").write_text("not an image")
    whole = photo(photos / "dog" / "cut.jpg", 1, size=(200, 200)).read_bytes()
    (photos / "dog" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "dog" / "bomb.png").write_bytes(bomb())
    data = load(str(photos), size=16)
    assert len(data.train) + len(data.val) == 20
    told = {Path(line.partition(": ")[0]).name: line.partition(": ")[2] for line in data.skipped}
    assert told.keys() == {"empty.png", "words.jpg", "cut.jpg", "bomb.png"}
    assert told["empty.png"] == "the file is empty"
    assert told["words.jpg"] == "no image format is recognised"
    assert "truncated" in told["cut.jpg"]
    assert "pixels" in told["bomb.png"]


def test_a_file_that_is_unreadable_raises_why(tmp_path):
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 30)
    with pytest.raises(UnreadableError):
        read_picture(tmp_path / "x.png")


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "YCbCr"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    suffix = "tif" if mode in ("CMYK", "YCbCr", "LA") else "png"
    assert read_picture(photo(tmp_path / f"x.{suffix}", 1, mode)).mode == "RGB"


def test_sixteen_bits_keep_their_shades(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    grey = np.asarray(read_picture(tmp_path / "deep.png"))[..., 0]
    assert grey[0, 0] == 0
    assert grey[-1, -1] == 255
    assert abs(int(grey.reshape(-1)[128]) - 128) <= 1


def test_what_is_transparent_becomes_white(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert np.asarray(read_picture(tmp_path / "clear.png")).min() == 255


def test_an_animation_is_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    red, _, blue = np.asarray(read_picture(tmp_path / "two.gif"))[0, 0]
    assert red > 250
    assert blue < 5


def test_a_turned_photo_is_upright(tmp_path):
    image = Image.new("RGB", (10, 4))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg").size == (4, 10)


def test_no_readable_image_is_an_error(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "x.png").touch()
    with pytest.raises(DataError, match=r"none of the 2 images in .* can be read"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        ([], r"holds 0 class folders, at least 2 are needed. It must hold train/ and val/"),
        (["a/1.png"], r"holds 1 class folders, at least 2"),
        (["a/1.png", "b/readme.txt"], r"the class 'b' in .* has no images. Remove its folder or add images"),
        (["a/1.png", "a/2.png", "b/1.png"], r"the class 'b' in .* has 1 readable images, at least 2 needed"),
        (["train/a/1.png", "train/b/1.png"], r"holds train/ without the other of train/ and val/"),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png"], r"differ: b, c is on one side only"),
    ],
)
def test_a_folder_of_another_shape_is_told_what_it_must_look_like(tmp_path, make, told):
    for name in make:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            photo(path)
        else:
            path.touch()
    with pytest.raises(DataError, match=told):
        load(str(tmp_path))


def test_a_file_and_an_empty_name_are_no_folder(tmp_path):
    path = photo(tmp_path / "1.png")
    with pytest.raises(DataError, match=r"^load: .*1.png is a file, a folder of images is wanted. Give one that holds"):
        load(str(path))
    with pytest.raises(OptionError, match=r"^load: the name is empty. Use digits, digit-pairs, .*or the path of"):
        load("")


def bomb() -> bytes:
    """A PNG that says it has 40,000 by 40,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (40000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )
