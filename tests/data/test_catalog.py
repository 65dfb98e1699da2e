"""Names: every one is documented, says what it wants where nothing is given, and misspelt ones are answered."""

from pathlib import Path

import pytest

from data import miniatures
from foveal.data import NAMES, DataOptions, load, load_options
from foveal.data.catalog import READERS
from foveal.errors import DataError, OptionError

PAGES = {
    "cifar10": r"Fetch cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html",
    "cifar100": r"Fetch cifar-100-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html",
    "tiny-imagenet": r"Fetch tiny-imagenet-200.zip from http://cs231n.stanford.edu",
    "imagenet": r"Fetch ILSVRC2012_img_train.tar .* from https://image-net.org",
    "imagenet-shards": r"It must hold train/\*.tar and val/\*.tar",
    "shards": r"It must hold train/\*.tar and val/\*.tar",
    "folder": r"It must hold train/ and val/, each with one folder of images a class",
}


@pytest.mark.parametrize("name", READERS)
def test_a_name_without_a_path_or_with_an_empty_one_says_what_is_wanted(tmp_path, name):
    with pytest.raises(DataError, match=rf"^load: {name} needs --data.path, .* got none. {PAGES[name]}"):
        load(name)
    with pytest.raises(DataError, match=rf"^load: .*{PAGES[name]}"):
        load_options(DataOptions(name=name, path=str(tmp_path)))
    with pytest.raises(DataError, match=rf"^load: .*{PAGES[name]}"):
        load_options(DataOptions(name=name, path=str(tmp_path / "nowhere")))


def test_every_name_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    assert all(f"`{name}`" in page for name in NAMES)


def test_a_misspelt_name_with_a_path_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(DataError, match=r"no data set 'tiny_imagenet'. Did you mean tiny-imagenet\? Use digits,"):
        load_options(DataOptions(name="tiny_imagenet", path=str(tmp_path)))


def test_what_ships_has_no_path(tmp_path):
    with pytest.raises(OptionError, match=r"digits ships with foveal and has no path, got"):
        load_options(DataOptions(name="digits", path=str(tmp_path)))


@pytest.mark.parametrize(
    "options",
    [
        DataOptions("digits", skip="names.txt"),
        DataOptions("digit-pairs", verify="whole"),
        DataOptions("cifar10", skip="a"),
    ],
)
def test_options_of_image_files_are_refused_where_there_are_none(options):
    with pytest.raises(OptionError, match=rf"--data.(skip|verify) is of image files, and {options.name} has none"):
        load_options(options)


def test_digit_pairs_are_never_resized():
    with pytest.raises(OptionError, match=r"digit-pairs draws its own pairs .* no interpolation"):
        load_options(DataOptions("digit-pairs", interpolation="bicubic"))


def test_a_path_as_a_name_is_the_folder_there(tmp_path):
    path = str(miniatures.folder(tmp_path))
    by_path, by_name = load(path, size=16), load_options(DataOptions(name="folder", path=path, size=16))
    assert by_path.fingerprint == by_name.fingerprint and by_path.name == by_name.name == path


def test_size_goes_before_that_of_the_options(tmp_path):
    path = str(miniatures.folder(tmp_path))
    assert load("folder", size=16, options=DataOptions(path=path, size=32)).size == 16
    assert load("folder", options=DataOptions(path=path, size=32)).size == 32
