"""ImageNet in class folders, and with its validation images in one."""

import pytest

from data import miniatures
from foveal.data import DataOptions, load_options
from foveal.data.names import imagenet_synsets
from foveal.errors import DataError


def given(path, **options):
    return load_options(DataOptions(name="imagenet", path=str(path), **options))


def test_class_folders_are_read_as_torchvision_reads_them(tmp_path):
    from torchvision.datasets import ImageFolder

    data = given(miniatures.imagenet(tmp_path, classes=4), size=32)
    for side in ("train", "val"):
        theirs, ours = ImageFolder(tmp_path / side), getattr(data, side)
        assert [path for path, _ in theirs.samples] == [str(path) for path in ours.paths]
        assert theirs.targets == list(ours.labels)
    assert data.classes == ("tench", "goldfish", "crane (n02012849)", "crane (n03126707)")
    assert data.train[0][0].shape == (3, 32, 32)


def test_words_beside_the_images_go_before_timms(tmp_path):
    miniatures.imagenet(tmp_path)
    (tmp_path / "words.txt").write_text("n01440764\tfresh fish, tench\n")
    assert given(tmp_path).classes == ("fresh fish", "n01443537", "n02012849")


def test_validation_images_of_one_folder_have_the_classes_of_their_list(tmp_path):
    data = given(miniatures.imagenet_flat(tmp_path, classes=3))
    told = [(path.name, label) for path, label in zip(data.val.paths, data.val.labels, strict=True)]
    assert told == [(f"ILSVRC2012_val_{n + 1:08}.JPEG", n // 2) for n in range(6)]
    assert data.classes == ("tench", "goldfish", "crane")


def test_both_layouts_train_on_the_same_images(tmp_path):
    one, other = given(miniatures.imagenet(tmp_path / "a")), given(miniatures.imagenet_flat(tmp_path / "b"))
    assert [path.name for path in one.train.paths] == [path.name for path in other.train.paths]
    assert (one.train[4][0] == other.train[4][0]).all()


def test_timm_knows_a_thousand_synsets_in_order():
    synsets = imagenet_synsets()
    assert len(synsets) == 1000
    assert synsets == sorted(synsets)


def test_missing_sides_are_told_with_what_to_fetch(tmp_path):
    with pytest.raises(
        DataError, match=r"lacks train/ and val/ of imagenet. Fetch ILSVRC2012_img_train.tar and .*image-net"
    ):
        given(tmp_path)


def test_a_list_that_lacks_an_image_is_told(tmp_path):
    miniatures.imagenet_flat(tmp_path)
    listed = tmp_path / "LOC_val_solution.csv"
    listed.write_text("\n".join(listed.read_text().splitlines()[:-1]))
    with pytest.raises(DataError, match=r"has to give the class of .*ILSVRC2012_val_\d+.JPEG and says nothing of it"):
        given(tmp_path)


def test_a_flat_folder_without_its_list_is_told_what_is_wanted(tmp_path):
    miniatures.imagenet_flat(tmp_path)
    (tmp_path / "LOC_val_solution.csv").unlink()
    with pytest.raises(DataError, match=r"val/ has no class folders. Sort .* or put LOC_val_solution.csv"):
        given(tmp_path)
