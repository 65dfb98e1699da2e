"""Tiny ImageNet: its list of validation images, its grey ones, and what is said of a folder that is not it."""

import pytest
import torch

from data import miniatures
from foveal.data import DataOptions, load_options
from foveal.errors import DataError


def given(path, **options):
    return load_options(DataOptions(name="tiny-imagenet", path=str(path), **options))


def test_classes_have_words_in_the_order_of_their_synsets(tmp_path):
    data = given(miniatures.tiny_imagenet(tmp_path, classes=4))
    assert data.classes == ("tench", "goldfish", "crane (n02012849)", "crane (n03126707)")
    assert (len(data.train), len(data.val), data.size) == (12, 8, 64)
    assert list(data.train.labels) == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3


def test_validation_images_have_the_classes_of_their_list(tmp_path):
    data = given(miniatures.tiny_imagenet(tmp_path, classes=3))
    told = {path.name: data.classes[label] for path, label in zip(data.val.paths, data.val.labels, strict=True)}
    names = ("tench", "goldfish", "crane")
    assert told == {f"val_{n}.JPEG": names[(2 * n + 1) % 3] for n in range(6)}


def test_grey_images_have_three_channels_and_test_images_take_no_part(tmp_path):
    data = given(miniatures.tiny_imagenet(tmp_path))
    grey = data.train.picture(2)
    assert grey.shape == (3, 64, 64)
    assert torch.equal(grey[0], grey[1])
    assert not any(
        "test" in path.relative_to(tmp_path).parts for split in (data.train, data.val) for path in split.paths
    )


def test_the_folder_itself_and_another_size_will_do(tmp_path):
    miniatures.tiny_imagenet(tmp_path)
    data = given(tmp_path / "tiny-imagenet-200", size=32)
    assert data.train[0][0].shape == data.val[0][0].shape == (3, 32, 32)


def test_missing_files_are_named_with_the_page_to_fetch_from(tmp_path):
    with pytest.raises(
        DataError, match=r"lacks wnids.txt, train, val/images, val/val_annotations.txt of tiny-imagenet"
    ):
        given(tmp_path)
    root = miniatures.tiny_imagenet(tmp_path) / "tiny-imagenet-200"
    (root / "val" / "val_annotations.txt").unlink()
    with pytest.raises(
        DataError, match=r"lacks val/val_annotations.txt of .*Fetch tiny-imagenet-200.zip from http://cs231n"
    ):
        given(tmp_path)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("val_9.JPEG\tn01440764\t0\t0\t1\t1", r"line 7 of .*val_annotations.txt names 'val_9.JPEG', which val/images"),
        ("val_0.JPEG\tn09999999\t0\t0\t1\t1", r"names .*wnids.txt lacks|names 'val_0.JPEG'"),
    ],
)
def test_a_list_that_does_not_fit_is_told_with_its_line(tmp_path, line, told):
    root = miniatures.tiny_imagenet(tmp_path) / "tiny-imagenet-200"
    with (root / "val" / "val_annotations.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=told):
        given(tmp_path)


def test_an_image_that_the_list_leaves_out_is_told(tmp_path):
    root = miniatures.tiny_imagenet(tmp_path) / "tiny-imagenet-200"
    miniatures.photo(root / "val" / "images" / "val_99.JPEG")
    with pytest.raises(DataError, match=r"says nothing of val_99.JPEG"):
        given(tmp_path)


def test_a_class_without_its_folder_is_told(tmp_path):
    root = miniatures.tiny_imagenet(tmp_path) / "tiny-imagenet-200"
    with (root / "wnids.txt").open("a") as file:
        file.write("n09999999\n")
    with pytest.raises(DataError, match=r"lacks the classes n09999999 of wnids.txt"):
        given(tmp_path)
