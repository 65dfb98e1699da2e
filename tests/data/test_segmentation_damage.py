"""Folders of labelled images in which something is wrong: it is said, with what to do, or left out with its reason."""

import shutil

import numpy as np
import pytest
from PIL import Image

from data import segmentation_miniatures as miniatures
from data.segmentation_miniatures import load
from foveal.data.segmentation import catalog
from foveal.data.segmentation.options import SegmentationData
from foveal.errors import DataError, OptionError


def edited(path, change):
    """A miniature of VOC with something wrong in it."""
    folder = miniatures.voc(path) / "VOCdevkit" / "VOC2012"
    change(folder)
    return folder


def lists(folder):
    return folder / "ImageSets" / "Segmentation"


def first(folder, kind="labels"):
    return folder / ("JPEGImages/2007_000000.jpg" if kind == "image" else "SegmentationClass/2007_000000.png")


DAMAGE = {
    "no list": (lambda f: (lists(f) / "val.txt").unlink(), "there is no list .*val.txt, there are: train, trainaug, t"),
    "empty list": (lambda f: (lists(f) / "train.txt").write_text("\n \n"), "train.txt is empty. Give a list with"),
    "named twice": (lambda f: (lists(f) / "train.txt").write_text("2007_000001\n" * 2), "names 2007_000001 twice"),
    "no image": (lambda f: first(f, "image").unlink(), "train.txt has no image for 2007_000000. Add the file, or take"),
    "no labels": (lambda f: first(f).unlink(), "train.txt has no labels for 2007_000000. Add the file"),
    "sizes": (lambda f: miniatures.palette_png(np.zeros((9, 5), np.uint8), first(f)), "has 51x37 pixels, its labels .*"
              "2007_000000.png have 5x9. Give each image labels of its own size"),
    "labels gone": (lambda f: [shutil.rmtree(path) for path in f.glob("Segm*")], "no folder .*SegmentationClass"),
    "no folder": (lambda f: (f / "JPEGImages").rename(f / "images"), "there is no JPEGImages/ in .*It must hold JPEGI"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_folder_is_told_before_training_with_what_to_do(tmp_path, case):
    change, words = DAMAGE[case]
    with pytest.raises(DataError, match=f"^load: .*{words}"):
        load("voc", edited(tmp_path, change))


@pytest.mark.parametrize("kind", ["image", "labels"])
@pytest.mark.parametrize("content", [b"", b"no image"])
def test_a_file_that_cannot_be_read_is_left_out_with_its_reason(tmp_path, kind, content):
    folder = edited(tmp_path, lambda f: first(f, kind).write_bytes(content))
    data = load("voc", folder)
    assert len(data.train) == 3 and len(data.skipped) == 1
    assert "2007_000000.jpg: " in data.skipped[0]
    assert ("SegmentationClass" in data.skipped[0]) == (kind == "labels")
    assert data.skipped[0].endswith("the file is empty" if not content else "no image format is recognised")


def test_truncated_files_and_wrong_labels_are_found_before_training_where_that_is_wanted(tmp_path):
    folder = edited(tmp_path, lambda f: first(f, "image").write_bytes(first(f, "image").read_bytes()[:-300]))
    assert load("voc", folder).skipped == ()
    assert "2007_000000.jpg: " in load("voc", folder, verify="whole").skipped[0]
    with pytest.raises(DataError, match="JPEGImages/2007_000000.jpg or its labels .* cannot be read: .* Restore both"):
        load("voc", folder).train[0]
    miniatures.grey_png(np.full((45, 33), 21, np.uint8), folder / "SegmentationClass" / "2007_000001.png")
    load("voc", folder)
    with pytest.raises(DataError, match="2007_000001.png has the label 21 in row 0, column 0, wanted are 0 to 20"):
        load("voc", folder, verify="whole")


def test_images_are_left_out_by_name(tmp_path):
    folder = miniatures.voc(tmp_path) / "VOCdevkit" / "VOC2012"
    (tmp_path / "skip").write_text("JPEGImages/2007_000000.jpg\n")
    data = load("voc", folder, skip=str(tmp_path / "skip"))
    assert len(data.train) == 3 and data.skipped[0].endswith("it is named by --data.skip")


def test_an_image_that_the_camera_turned_is_read_as_its_labels_are(tmp_path):
    folder = miniatures.voc(tmp_path) / "VOCdevkit" / "VOC2012"
    turned = Image.Exif()
    turned[0x0112] = 6
    image = Image.open(first(folder, "image"))
    image.save(first(folder, "image"), exif=turned)
    as_stored = load("voc", folder, verify="whole").train.pair(0)[0]
    assert as_stored.size == (51, 37)
    miniatures.palette_png(np.zeros((51, 37), np.uint8), first(folder))
    assert load("voc", folder, verify="whole").train.pair(0)[0].size == (37, 51)


FOLDERS = {
    "no classes": (lambda f: (f / "classes.txt").unlink(), "there is no file .*classes.txt. It must hold classes.txt"),
    "one class": (lambda f: (f / "classes.txt").write_text("road\n"), "names 1 classes, 2 to 255 are wanted"),
    "twice": (lambda f: (f / "classes.txt").write_text("road\nroad\n"), "must name each class once, 'road' is there"),
    "gap": (lambda f: (f / "classes.txt").write_text("road\n\nsky\n"), "must name each class once, a line is empty"),
    "no labels": (lambda f: (f / "labels").rename(f / "masks"), "there is no folder .*labels. It must hold"),
    "lossy": (lambda f: (f / "labels" / "a0.png").rename(f / "labels" / "a0.jpg"), "a0.jpg is no PNG"),
    "one name": (lambda f: (f / "images" / "a0.png").write_bytes(b"1"), "have one name. Remove one of them"),
    "missing": (lambda f: (f / "labels" / "a3.png").unlink(), "images has no labels for a3"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_wrong_folder_of_ones_own_is_told_with_what_it_must_hold(tmp_path, case):
    change, words = FOLDERS[case]
    change(path := miniatures.folder(tmp_path / "own"))
    with pytest.raises(DataError, match=f"^load: .*{words}"):
        load("folder", path)


def test_names_and_paths_that_are_not_there_are_told(tmp_path):
    with pytest.raises(DataError, match="no segmentation data set or folder 'vocc'. Did you mean voc"):
        load("vocc", tmp_path)
    with pytest.raises(DataError, match="voc needs --data.path, the path of its folder, got none. It must hold JPEGIm"):
        catalog.load(SegmentationData("voc"))
    with pytest.raises(DataError, match="nowhere does not exist. It must hold images/training"):
        load("ade20k", tmp_path / "nowhere")
    with pytest.raises(DataError, match="there is no leftImg8bit/ in"):
        load("cityscapes", tmp_path)
    with pytest.raises(OptionError, match=r"--data.std must be three numbers above 0, got \(0.1, 0.0, 0.1\)"):
        catalog.load(SegmentationData("voc", std=(0.1, 0.0, 0.1)))
