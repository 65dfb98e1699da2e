"""Labelled images in the layouts of the published sets: what is read is what stands there, what is wrong is said."""

import random
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from data import segmentation_miniatures as miniatures
from foveal.data.preparation import Normalisation
from foveal.data.samples import mix
from foveal.data.segmentation import catalog, classes, generated
from foveal.data.segmentation.augmentation import Draw, scale_factor
from foveal.data.segmentation.labels import Coding, read_labels
from foveal.data.segmentation.options import SegmentationAugmentation, SegmentationData
from foveal.errors import DataError, OptionError
from foveal.tasks.reading import Reader

PLAIN = Normalisation((0.5, 0.25, 0.75), (0.5, 0.5, 0.25))


def load(name, path, **options):
    return catalog.load(SegmentationData(name, str(path), **options))


def stored(path):
    return np.asarray(Image.open(path))


# Layouts ---------------------------------------------------------------------------------------------------------


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


# Files of labels -------------------------------------------------------------------------------------------------

MARKED = np.array([[0, 1, 2], [2, 255, 1]], np.uint8)


def encoded(mode, path):
    """``MARKED`` in one of the forms that users have."""
    if mode == "P":
        return miniatures.palette_png(MARKED, path)
    if mode == "renumbered":
        # As tools that save space write it: only the colours that are used, in another order.
        colours = miniatures.voc_colours(256)
        image = Image.fromarray(np.select([MARKED == 2, MARKED == 255, MARKED == 0], [0, 1, 2], 3).astype(np.uint8))
        image = image.convert("P")
        image.putpalette([v for number in (2, 255, 0, 1) for v in colours[number]])
        return miniatures.save(image, path)
    if mode == "other palette":
        image = Image.fromarray(MARKED).convert("P")
        image.putpalette([v for number in range(256) for v in (number, 255 - number, 77)])
        return miniatures.save(image, path)
    if mode == "16 bits":
        return miniatures.save(Image.fromarray(MARKED.astype(np.uint16)), path)
    if mode == "three greys":
        return miniatures.save(Image.fromarray(MARKED).convert("RGB"), path)
    if mode in ("RGB", "RGBA"):
        colours = np.array(miniatures.voc_colours(256), np.uint8)
        return miniatures.save(Image.fromarray(colours[MARKED]).convert(mode), path)
    return miniatures.grey_png(MARKED, path)


@pytest.mark.parametrize("mode", ["P", "renumbered", "other palette", "L", "16 bits", "three greys", "RGB", "RGBA"])
def test_labels_are_the_same_in_whatever_form_they_are_stored(tmp_path, mode):
    np.testing.assert_array_equal(read_labels(encoded(mode, tmp_path / "a.png"), Coding.plain(3)), MARKED)


def test_labels_of_one_bit_are_numbers(tmp_path):
    image = Image.fromarray(np.array([[True, False]]))
    assert image.mode == "1"
    path = miniatures.save(image, tmp_path / "a.png")
    assert read_labels(path, Coding.plain(2)).tolist() == [[1, 0]]


WRONG = {
    "outside": (lambda p: miniatures.grey_png(np.array([[0, 3]], np.uint8), p), "has the label 3 in row 0, column 1, wa"
                r"nted are 0 to 2, and 255 for what does not count\. Map it to a class or to what does not count, or"),
    "16 bits": (lambda p: miniatures.save(Image.fromarray(np.array([[7, 300]], np.uint16)), p), "has the label 7 in row"
                " 0, column 0"),
    "wide": (lambda p: miniatures.save(Image.fromarray(np.array([[0], [256]], np.uint16)), p), "label 256 in row 1"),
    "colours": (lambda p: miniatures.save(Image.fromarray(np.array([[[0, 0, 0], [9, 8, 7]]], np.uint8)), p), r"holds co"
                r"lours, with \(9, 8, 7\) in row 0, column 1; the colours of VOC's classes or one value a pixel are"),
    "jpeg": (lambda p: Image.fromarray(MARKED).save(p, "JPEG"), "holds labels as JPEG, which changes values"),
    "float": (lambda p: Image.fromarray(MARKED.astype(np.float32)).save(p, "TIFF"), "Pillow's mode F, one grey value"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_labels_are_told_with_their_file_value_and_place(tmp_path, case):
    write, words = WRONG[case]
    write(tmp_path / "a.png")
    with pytest.raises(DataError, match=f"^load: {tmp_path / 'a.png'} ?.*{words}"):
        read_labels(tmp_path / "a.png", Coding.plain(3))


# What is wrong with a folder -------------------------------------------------------------------------------------


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


def test_reading_by_a_worker_gives_the_same(tmp_path):
    data = load("voc", miniatures.voc(tmp_path), augmentation=SegmentationAugmentation(crop=(24, 24)))
    chosen = [[2, 0], [1, 3]]
    here, there = (list(Reader(workers).read(data.train, 5, 3, chosen)) for workers in (0, 1))
    for (x, y), (other_x, other_y) in zip(here, there, strict=True):
        assert torch.equal(x, other_x) and torch.equal(y, other_y)


# What training draws ---------------------------------------------------------------------------------------------


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
        ({"flip": 1.5}, "flip must be from 0 to 1, got 1.5"),
        ({"color_jitter": -0.1}, "color_jitter must be from 0 to 1"),
    ],
)
def test_options_out_of_range_are_told(options, words):
    with pytest.raises(OptionError) as told:
        draw(**options)
    assert words in str(told.value)


# Generated -------------------------------------------------------------------------------------------------------


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


def test_an_item_of_an_epoch_has_a_seed_of_its_own():
    assert len({mix(seed, epoch, index, 2) for seed in range(3) for epoch in range(5) for index in range(40)}) == 600
