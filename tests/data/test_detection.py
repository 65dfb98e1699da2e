"""COCO's layout: what is read is what its own tools read, and what is wrong with a folder is said in a sentence."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from data.detection_miniatures import SIZES, coco, edit
from foveal.data.detection.annotations import read_annotations
from foveal.data.detection.changes import Change, mirrored, resized, window
from foveal.data.detection.coco import load_detection
from foveal.data.detection.options import DetectionData
from foveal.data.detection.rle import decode, encode, from_segmentation
from foveal.errors import DataError

mask_utils = pytest.importorskip("pycocotools.mask")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return coco(tmp_path_factory.mktemp("coco") / "coco")


@pytest.fixture
def own(whole, tmp_path):
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "own")


def load(path, *, masks=True, **options):
    return load_detection(DetectionData(**{"name": "coco", "path": str(path), **options}), masks=masks)


def annotations(path, side="train"):
    return path / "annotations" / f"instances_{side}2017.json"


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


def test_files_that_cannot_be_read_are_left_out_and_named(own):
    broken, empty = sorted((own / "train2017").iterdir())[2:4]
    broken.write_bytes(broken.read_bytes()[:300])
    empty.write_bytes(b"")
    data = load(own, empty=True)
    assert len(data.train) == 4
    assert any(broken.name in line for line in data.skipped)
    assert any(empty.name in line and "the file is empty" in line for line in data.skipped)
    assert data.fingerprint != load(own.parent / "own", empty=True, skip=_listing(own)).fingerprint


def _listing(own):
    path = own / "leave.txt"
    path.write_text(f"val2017/{sorted((own / 'val2017').iterdir())[0].name}\n")
    return str(path)


def _remove(told, part):
    del told[part]


WRONG = {
    "no images": (lambda t: _remove(t, "images"), "images: they are missing"),
    "no objects": (lambda t: _remove(t, "annotations"), "annotations: they are missing"),
    "no categories": (lambda t: t.update(categories=[]), "categories: there are none"),
    "a category twice": (lambda t: t["categories"].append(t["categories"][0]), "an id is there twice"),
    "an image twice": (lambda t: t["images"].append(t["images"][0]), "image 1000: its id is there twice"),
    "no height": (lambda t: t["images"][1].pop("height"), "image 993: its height must be a whole number, got None"),
    "no rows": (lambda t: t["images"][1].update(height=0), "image 993: it has 0 rows and 48 columns"),
    "no file name": (lambda t: t["images"][1].pop("file_name"), "image 993: it has no file_name"),
    "no such image": (lambda t: t["annotations"][1].update(image_id=7), "annotation 503: its image_id 7 is not in"),
    "no such category": (lambda t: t["annotations"][1].update(category_id=[2]), r"its category_id \[2\] is not in"),
    "half a box": (lambda t: t["annotations"][1].update(bbox=[1, 2, 3]), "annotation 503: its bbox must be four"),
    "a box of nothing": (lambda t: t["annotations"][1].update(bbox=[1, 2, None, 4]), "its bbox must be four numbers"),
    "no area": (lambda t: t["annotations"][1].update(area="big"), "its area must be a number, got 'big'"),
    "a name for an id": (lambda t: t["annotations"][1].update(id="x"), "its id must be a whole number, got 'x'"),
    "other categories": (lambda t: t["categories"][1].update(name="cat"), "have other categories"),
}  # fmt: skip


@pytest.mark.parametrize("damage", WRONG)
def test_a_damaged_annotation_file_is_told_in_a_sentence(own, damage):
    change, told = WRONG[damage]
    edit(annotations(own), change)
    with pytest.raises(DataError, match=told) as raised:
        load(own)
    assert "\n" not in str(raised.value) and str(annotations(own)) in str(raised.value)


SHAPES = {
    "two points": ([[1, 2, 3, 4]], "a polygon needs three points"),
    "words": ([["a"] * 6], "a place that is no number"),
    "nothing": ("x", "it is neither polygons nor runs"),
    "short runs": ({"size": [40, 60], "counts": [3, 4]}, "its runs are of 7 pixels, the image has 2400"),
    "other size": ({"size": [40, 61], "counts": [3, 4]}, r"its runs are of \[40, 61\] rows and columns"),
    "no counts": ({"size": [40, 60]}, "its runs have no counts"),
    "torn": ({"size": [40, 60], "counts": "zz"}, "annotation 500: its segmentation is none of an image of 40 rows"),
}


@pytest.mark.parametrize("damage", SHAPES)
def test_a_damaged_segmentation_is_told_where_it_is_read(own, damage):
    shape, told = SHAPES[damage]
    edit(annotations(own), lambda t: t["annotations"][0].update(segmentation=shape))
    data = load(own)
    with pytest.raises(DataError, match=told):
        data.train.item(0)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda p: annotations(p).write_text("{"), "is no whole JSON"),
        (lambda p: annotations(p).unlink(), "lacks annotations/instances_train2017.json. Fetch train2017.zip"),
        (lambda p: shutil.rmtree(p / "val2017"), "lacks val2017/. Fetch"),
        (lambda p: sorted((p / "val2017").iterdir())[0].unlink(), "names 3 images, of which .* lacks 1: val2017/0000"),
        (lambda p: shutil.rmtree(p), "does not exist, wanted is a folder"),
    ],
)
def test_what_is_missing_is_named(own, damage, told):
    damage(own)
    with pytest.raises(DataError, match=told):
        load(own)


def test_a_path_is_needed_but_for_the_generated_set():
    with pytest.raises(DataError, match="coco needs --data.path, the folder where it lies. Fetch train2017.zip"):
        load_detection(DetectionData(name="coco"), masks=True)
    with pytest.raises(DataError, match="folder needs --data.path.*A folder in COCO's format holds train/"):
        load_detection(DetectionData(name="folder"), masks=True)


def test_an_image_of_another_size_than_its_annotations_is_refused(own):
    Image.new("RGB", (20, 30)).save(sorted((own / "train2017").iterdir())[-1])
    with pytest.raises(DataError, match="has 30 rows and 20 columns, .* says 40 and 60"):
        load(own).train.item(0)


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
    polygon = [[3.3, 2.2, 17.9, 4.1, 12.5, 18.0, 5.0, 15.5], [1, 1, 4, 1, 4, 3]]
    theirs = mask_utils.merge(mask_utils.frPyObjects(polygon, 20, 22))
    assert from_segmentation(polygon, 20, 22)["counts"] == theirs["counts"].decode()


def item():
    """An image whose objects are blocks of their own colour."""
    image = torch.zeros(3, 30, 40, dtype=torch.uint8)
    masks = torch.zeros(2, 30, 40, dtype=torch.uint8)
    boxes = torch.tensor([[2.0, 3.0, 12.0, 9.0], [20.0, 10.0, 38.0, 28.0]])
    for n, (left, top, right, bottom) in enumerate(boxes.int().tolist()):
        masks[n, top:bottom, left:right] = 1
        image[n, top:bottom, left:right] = 200
    return image, {"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks}


def around(mask):
    rows, columns = mask.nonzero(as_tuple=True)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_boxes_and_masks_follow_a_mirrored_image():
    image, target = mirrored(*item())
    for n, mask in enumerate(target["masks"]):
        assert target["boxes"][n].tolist() == around(mask)
        assert torch.equal(image[n] > 100, mask.bool())


@pytest.mark.parametrize("factor", [0.5, 1.7, 3.0])
def test_boxes_and_masks_follow_a_resized_image(factor):
    image, target = resized(*item(), factor)
    for n, mask in enumerate(target["masks"]):
        assert image.shape[1:] == mask.shape
        torch.testing.assert_close(target["boxes"][n], torch.tensor(around(mask)).float(), atol=1.0, rtol=0)
        assert ((image[n] > 100) != mask.bool()).float().mean() < 0.03


@pytest.mark.parametrize(("down", "right"), [(0.0, 0.0), (0.99, 0.99), (0.5, 0.2)])
@pytest.mark.parametrize("side", [16, 25, 64])
def test_a_window_keeps_what_lies_in_it_and_pads_with_the_mean(side, down, right):
    image, target = window(*item(), side, down, right)
    assert image.shape == (3, side, side)
    assert len(target["boxes"]) == len(target["masks"]) == len(target["labels"])
    for box, mask, label in zip(target["boxes"], target["masks"], target["labels"].tolist(), strict=True):
        assert box.tolist() == around(mask)
        assert torch.equal(mask.bool(), image[label - 1] == 200)
    if side == 64:
        assert len(target["boxes"]) == 2
        assert image[:, 40, 10].tolist() == [124, 116, 104]


def test_what_is_drawn_follows_from_seed_epoch_and_index(whole):
    def read(order, seed, epoch):
        data = load(whole, flip=0.5, crop=32, jitter=(0.5, 2.0)).train
        data.at(seed, epoch)
        return {n: data.item(n) for n in order}

    one, other = read([0, 1, 2], 3, 4), read([2, 0, 1], 3, 4)
    assert all(torch.equal(one[n][0], other[n][0]) for n in one)
    assert all(torch.equal(one[n][1]["boxes"], other[n][1]["boxes"]) for n in one)
    assert any(not torch.equal(one[n][0], read([n], 3, 5)[n][0]) for n in one)
    assert all(image.shape == (3, 32, 32) for image, _ in one.values())


def test_an_image_can_lose_all_its_objects_to_a_window():
    image, target = item()
    change = Change(crop=8, jitter=(5.0, 5.0))
    drawn = [change(image, target, torch.Generator().manual_seed(n))[1] for n in range(40)]
    assert any(len(each["boxes"]) == 0 for each in drawn) and any(len(each["boxes"]) for each in drawn)
    assert all(each["masks"].shape == (len(each["boxes"]), 8, 8) for each in drawn)


def test_flips_come_as_often_as_asked():
    image, target = item()
    for share in (0.0, 0.3, 1.0):
        change = replace(Change(), flip=share)
        drawn = [change(image, target, torch.Generator().manual_seed(n))[0] for n in range(200)]
        flipped = sum(torch.equal(each, image.flip(2)) for each in drawn) / 200
        assert flipped == pytest.approx(share, abs=0.1)
