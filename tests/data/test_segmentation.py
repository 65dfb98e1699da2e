"""Labelled images in the layouts of the published sets, and the generated one: what is read is what stands there."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from data import segmentation_miniatures as miniatures
from data.segmentation_miniatures import load, stored
from foveal.data.segmentation import catalog, classes, generated
from foveal.data.segmentation.options import SegmentationData


def test_voc_takes_the_images_of_its_lists_with_the_indices_of_the_palette(tmp_path):
    path = miniatures.voc(tmp_path)
    data = load("voc", path)
    assert (len(data.train), len(data.val), len(data.classes), data.classes[20]) == (4, 3, 21, "tvmonitor")
    images, labels = data.val.batch([0, 2])
    folder = path / "VOCdevkit" / "VOC2012"
    for image, marked, name in zip(images, labels, ("2007_000004", "2007_000006"), strict=True):
        assert marked.dtype == torch.uint8 and (marked == 255).any()
        np.testing.assert_array_equal(marked.numpy(), stored(folder / "SegmentationClass" / f"{name}.png"))
        pixels = stored(folder / "JPEGImages" / f"{name}.jpg").transpose(2, 0, 1) / 255
        mean, std = (np.array(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        np.testing.assert_allclose(image.numpy(), (pixels - mean) / std, atol=1e-5)
    assert {load("voc", inner).fingerprint for inner in (path / "VOCdevkit", folder)} == {data.fingerprint}


@pytest.mark.parametrize("spelling", ["train_aug", "trainaug"])
def test_voc_takes_augmented_labels_by_either_name_of_the_list_and_lines_of_two_paths(tmp_path, spelling):
    data = load("voc", miniatures.voc(tmp_path), train=spelling)
    assert len(data.train) == 6 and "SegmentationClassAug" in str(data.train.labels[5])
    assert "SegmentationClassAug" not in str(data.train.labels[0])
    assert "SegmentationClassAug" not in str(data.val.labels[0])


def test_voc_with_the_augmented_labels_alone_takes_all_from_there(tmp_path):
    folder = miniatures.voc(tmp_path) / "VOCdevkit" / "VOC2012"
    for path in (folder / "SegmentationClass").iterdir():
        miniatures.grey_png(stored(path), folder / "SegmentationClassAug" / path.name)
        path.unlink()
    (folder / "SegmentationClass").rmdir()
    data = load("voc", tmp_path, train="train_aug")
    assert (len(data.train), len(data.val)) == (6, 3) and "SegmentationClassAug" in str(data.val.labels[0])


def test_training_on_what_is_measured_is_said(tmp_path):
    path = miniatures.voc(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load("voc", path)
    with pytest.warns(UserWarning, match="share 3 images, so what is measured was trained on"):
        assert len(load("voc", path, train="trainval").train) == 7


def test_ade20k_shifts_its_classes_and_ignores_0(tmp_path):
    path = miniatures.ade20k(tmp_path)
    data = load("ade20k", path)
    assert (len(data.train), len(data.val), data.classes[0], data.classes[149]) == (4, 2, "wall", "flag")
    assert len(set(data.classes)) == 150 == len(data.colours)
    raw = stored(path / "ADEChallengeData2016" / "annotations" / "validation" / "ADE_valid_00000001.png").astype(int)
    np.testing.assert_array_equal(data.val[0][1].numpy(), np.where(raw == 0, 255, raw - 1))


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_cityscapes_has_19_of_its_34_values_by_either_file(tmp_path, kind):
    path = miniatures.cityscapes(tmp_path, kind=kind)
    data = load("cityscapes", path)
    assert (len(data.train), len(data.val), len(data.classes)) == (4, 2, 19)
    raw = stored(path / "gtFine" / "train" / "aachen" / f"aachen_000001_000019_gtFine_{kind}.png")
    known = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14,
             28: 15, 31: 16, 32: 17, 33: 18}  # fmt: skip
    wanted = raw if kind == "labelTrainIds" else np.vectorize(lambda value: known.get(int(value), 255))(raw)
    np.testing.assert_array_equal(data.train.pair(1)[1], wanted)


def test_a_folder_is_named_or_given_by_its_path_and_parted_if_it_is_not(tmp_path):
    path = miniatures.folder(tmp_path / "flat")
    named, given = load("folder", path), catalog.load(SegmentationData(str(path)))
    assert (len(named.train), len(named.val), named.classes) == (5, 1, ("road", "tree", "sky"))
    assert named.fingerprint == given.fingerprint and str(named.val.images[0]).endswith("a4.jpg")
    parted = load("folder", miniatures.folder(tmp_path / "parted", sides=True))
    assert (len(parted.train), len(parted.val)) == (4, 2)


def test_a_folder_of_palettes_is_read_by_number_whatever_their_colours(tmp_path):
    path = miniatures.folder(tmp_path)
    green, red = (0, 128, 0), (128, 0, 0)  # VOC's classes 2 and 1
    marked = stored(sorted((path / "labels").iterdir())[0]).clip(0, 2)
    image = Image.fromarray(marked).convert("P")
    image.putpalette([v for colour in ((0, 0, 0), green, red) for v in colour])
    image.save(sorted((path / "labels").iterdir())[0])
    assert {1, 2} <= set(marked.ravel().tolist())
    np.testing.assert_array_equal(load("folder", path).train.pair(0)[1], marked)


def test_the_generated_scenes_are_in_vocs_layout_with_its_palette_and_borders(tmp_path, monkeypatch):
    monkeypatch.setattr(generated, "COUNTS", {"train": 5, "val": 2})
    generated.write(tmp_path / "one")
    generated.write(tmp_path / "two")
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 2 * 7 + 3
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    data = load("digit-scenes-voc", tmp_path / "one", verify="whole")
    assert (len(data.train), len(data.val), data.classes) == (5, 2, classes.DIGITS)
    image = Image.open(data.train.labels[0])
    assert image.mode == "P" and image.getpalette() == miniatures.PALETTE
    for index in range(5):
        made, (picture, marked) = generated.scene(index, "train"), data.train.pair(index)
        assert picture.size == marked.shape[::-1] == made.image.shape[1::-1]
        assert np.abs(np.asarray(picture).astype(int) - made.image).mean() < 6
        ink = made.masks.any(0)
        for mask, label in zip(made.masks, made.labels, strict=True):
            assert (marked[mask] == label + 1).all()
        assert ((marked == 0) | (marked == 255) | ink).all() and (marked == 255).any()
        assert not ((marked == 255) & ink).any()
        for row, column in np.argwhere(marked == 255)[:40]:
            assert ink[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].any()
