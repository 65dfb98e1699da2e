"""COCO's layout: what is read is what its own tools read."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from data.detection_miniatures import SIZES, annotations, coco, edit, load
from foveal.data.detection.annotations import read_annotations
from foveal.data.detection.rle import check_segmentation, decode, encode, from_segmentation
from foveal.errors import DataError

mask_utils = pytest.importorskip("pycocotools.mask")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return coco(tmp_path_factory.mktemp("coco") / "coco")


@pytest.fixture
def own(whole, tmp_path):
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "own")


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_targets_are_what_pycocotools_reads(whole):
    from pycocotools.coco import COCO

    told, data = COCO(str(annotations(whole))), load(whole, flip=0.0)
    assert data.classes == ("person", "dog", "toothbrush") and data.category_ids == (1, 18, 90)
    for index in range(len(data.train)):
        image, target = data.train.item(index)
        number = int(data.train.annotations.ids[int(target["image"])])
        entry = told.loadImgs(number)[0]
        with Image.open(whole / "train2017" / entry["file_name"]) as picture:
            assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(picture.convert("RGB")))
        objects = [each for each in told.loadAnns(told.getAnnIds(number, iscrowd=False)) if each["bbox"][2] > 0]
        objects = [each for each in objects if each["bbox"][0] < entry["width"]]
        assert target["labels"].tolist() == [{1: 1, 18: 2, 90: 3}[each["category_id"]] for each in objects]
        boxes = np.array([each["bbox"] for each in objects])
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(target["boxes"].numpy(), boxes, rtol=1e-6)
        for mask, each in zip(target["masks"].numpy(), objects, strict=True):
            assert np.array_equal(mask, told.annToMask(each))


def test_crowds_and_boxes_without_extent_are_not_learned_and_told(whole):
    data = load(whole)
    # Of six images the fifth has a crowd alone and the sixth nothing.
    assert len(data.train) == 4 and len(data.val) == 3
    boxes, images = data.skipped
    assert "2 boxes without any extent within their image, 515 the first" in boxes
    assert "2 of 6 images, which have no object; --data.empty keeps them" in images
    kept = load(whole, empty=True)
    assert len(kept.train) == 6 and len(kept.skipped) == 1
    image, target = kept.train.item(5)
    assert image.shape == (3, *SIZES["train"][5])
    assert {name: tuple(values.shape) for name, values in target.items()} == {
        "boxes": (0, 4), "labels": (0,), "masks": (0, *SIZES["train"][5]), "image": ()
    }  # fmt: skip


def test_labels_by_id_leave_the_holes_in_the_classes(whole):
    data = load(whole, labels="ids")
    assert len(data.classes) == 90 and (data.classes[17], data.classes[89]) == ("dog", "toothbrush")
    assert set(data.classes) - {"N/A"} == {"person", "dog", "toothbrush"}
    assert {label for n in range(len(data.train)) for label in data.train.item(n)[1]["labels"].tolist()} == {1, 18, 90}


@pytest.mark.parametrize("number", [0, 10**12])
def test_labels_by_id_are_not_for_any_id(own, number):
    def change(told):
        told["categories"][0]["id"] = number
        told["annotations"] = [
            {**a, "category_id": number} if a["category_id"] == 1 else a for a in told["annotations"]
        ]

    for side in ("train", "val"):
        edit(annotations(own, side), change)
    assert number in load(own).category_ids
    with pytest.raises(
        DataError, match=r"--data.labels ids needs categories of 1 to 100,000, got .* Use --data.labels d"
    ):
        load(own, labels="ids")


def test_a_detector_of_boxes_needs_no_segmentation(own):
    def strip(told):
        for each in told["annotations"]:
            del each["segmentation"]

    edit(annotations(own), strip)
    _, target = load(own, masks=False).train.item(0)
    assert "masks" not in target and len(target["boxes"]) == 2
    with pytest.raises(DataError, match=r"5 objects without a segmentation, 500 the first.*Use faster_rcnn"):
        load(own)


def test_what_cannot_be_measured_is_told_before_training(own):
    path = annotations(own, "val")
    edit(path, lambda told: told["annotations"][3].pop("segmentation"))
    assert len(load(own, masks=False).val) == 3
    with pytest.raises(DataError, match=r"_val2017.json has 1 objects without a segmentation, 509 the first.*Use fas"):
        load(own)
    edit(path, lambda told: told.update(annotations=[each for each in told["annotations"] if each["iscrowd"]]))
    with pytest.raises(DataError, match=r"_val2017.json has no object to measure on\. Give annotations with boxes"):
        load(own, masks=False)


def test_a_box_too_narrow_for_its_numbers_is_not_learned(own):
    edit(annotations(own), lambda told: told["annotations"][0].update(bbox=[30.0, 5.0, 1e-5, 10.0]))
    data = load(own, flip=0.0)
    assert "3 boxes without any extent within their image, 500 the first" in data.skipped[0]
    assert data.train.item(0)[1]["boxes"].tolist() == [[30, 10, 55, 32]]


def test_a_folder_of_other_names_is_read_by_its_options(whole, tmp_path):
    (tmp_path / "notes").mkdir()
    shutil.copytree(whole / "train2017", tmp_path / "a" / "b")
    shutil.copytree(whole / "val2017", tmp_path / "c")
    shutil.copy(annotations(whole), tmp_path / "notes" / "x.json")
    shutil.copy(annotations(whole, "val"), tmp_path / "y.json")
    data = load(tmp_path, name="folder", train_images="a/b", train_annotations="notes/x.json", val_images="c",
                val_annotations="y.json")  # fmt: skip
    theirs = load(whole)
    assert torch.equal(data.train.item(0)[0], theirs.train.item(0)[0])
    assert data.fingerprint == theirs.fingerprint


def test_images_in_deeper_folders_are_found(own):
    (own / "train2017" / "deep").mkdir()

    def move(told):
        name = told["images"][0]["file_name"]
        (own / "train2017" / name).rename(own / "train2017" / "deep" / name)
        told["images"][0]["file_name"] = f"deep/{name}"

    before = load(own).train.image(0)
    edit(annotations(own), move)
    assert torch.equal(load(own).train.image(0), before)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16", "CMYK", "LA", "1"])
def test_images_of_any_mode_become_colour(own, mode):
    path = next(iter(sorted((own / "train2017").iterdir())))
    with Image.open(path) as picture:
        size = picture.size
    suffix = "tif" if mode == "CMYK" else "png"
    Image.new(mode, size, 1 if mode in ("1", "I;16") else None).save(path, suffix.replace("tif", "tiff"))
    data = load(own, empty=True)
    for index in range(len(data.train)):
        assert data.train.image(index).shape[0] == 3


def test_a_picture_that_was_marked_upright_is_taken_upright(own):
    """The third image has a camera's turn: its objects may be marked on the stored pixels, or on the turned ones."""

    def turn(told):
        told["images"][2] |= {"height": 48, "width": 44}
        told["annotations"] = [each for each in told["annotations"] if each["image_id"] != told["images"][2]["id"]]

    edit(annotations(own), turn)
    name = json.loads(annotations(own).read_text())["images"][2]["file_name"]
    noise = np.random.default_rng(3).integers(0, 256, (44, 48, 3), dtype=np.uint8)
    stored = Image.fromarray(noise)
    exif = stored.getexif()
    exif[0x0112] = 6
    stored.save(own / "train2017" / name, "PNG", exif=exif)
    upright = load(own, empty=True).train.image(2)
    assert np.array_equal(upright.permute(1, 2, 0).numpy(), np.rot90(noise, -1))
    edit(annotations(own), lambda told: told["images"][2].update(height=44, width=48))
    assert np.array_equal(load(own, empty=True).train.image(2).permute(1, 2, 0).numpy(), noise)


def test_truth_is_the_file_again(whole):
    told = json.loads(annotations(whole, "val").read_text())
    read = read_annotations(annotations(whole, "val"))
    again = read.truth(range(len(read.ids)), shapes=True)
    by_id = {each["id"]: each for each in told["annotations"]}
    assert {each["id"]: each for each in again["annotations"]} == by_id
    assert [each["id"] for each in again["images"]] == [each["id"] for each in told["images"]]


def test_masks_come_back_through_runs_that_pycocotools_writes_too():
    chance = np.random.default_rng(0)
    for size in ((1, 1), (7, 5), (33, 2)):
        for mask in (chance.random(size) < 0.5, np.zeros(size, bool), np.ones(size, bool)):
            rle = encode(mask)
            assert np.array_equal(decode(rle), mask)
            assert rle["counts"] == mask_utils.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
            assert from_segmentation(rle, *size) == rle
    wide = np.zeros((300, 300), bool)
    wide[:, 7:290] = chance.random((300, 283)) < 0.001
    check_segmentation(encode(wide), 300, 300)
    polygon = [[3.3, 2.2, 17.9, 4.1, 12.5, 18.0, 5.0, 15.5], [1, 1, 4, 1, 4, 3]]
    theirs = mask_utils.merge(mask_utils.frPyObjects(polygon, 20, 22))
    assert from_segmentation(polygon, 20, 22)["counts"] == theirs["counts"].decode()
