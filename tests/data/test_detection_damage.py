"""What is wrong with a folder in COCO's layout is said in a sentence, before training where it can be."""

import shutil

import pytest
from PIL import Image

from data.detection_miniatures import annotations, coco, edit, load
from foveal.data.detection.coco import load_detection
from foveal.data.detection.options import DetectionData
from foveal.errors import DataError

pytest.importorskip("faster_coco_eval")
pytest.importorskip("pycocotools")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return coco(tmp_path_factory.mktemp("coco") / "coco")


@pytest.fixture
def own(whole, tmp_path):
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "own")


def test_files_that_cannot_be_read_are_left_out_and_named(own):
    broken, empty = sorted((own / "train2017").iterdir())[2:4]
    broken.write_bytes(broken.read_bytes()[:300])
    empty.write_bytes(b"")
    data = load(own, empty=True)
    assert len(data.train) == 4
    assert any(broken.name in line for line in data.skipped)
    assert any(empty.name in line and "the file is empty" in line for line in data.skipped)
    assert data.fingerprint != load(own.parent / "own", empty=True, skip=_listing(own)).fingerprint


def test_other_images_are_other_data(own):
    listing = own / "leave.txt"

    def without(n):
        listing.write_text(f"train2017/{sorted((own / 'train2017').iterdir())[n].name}\n")
        return load(own, skip=str(listing)).fingerprint

    before = load(own).fingerprint
    assert len({before, without(0), without(1)}) == 3
    assert before == load(own).fingerprint
    Image.new("RGB", (60, 40)).save(own / "train2017" / f"{1000:012d}.jpg")
    assert before != load(own).fingerprint


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
    "no height": (lambda t: t["images"][1].pop("height"), "993: its height must be a whole number.*got None"),
    "no rows": (lambda t: t["images"][1].update(height=0), "image 993: it has 0 rows and 48 columns"),
    "no file name": (lambda t: t["images"][1].pop("file_name"), "image 993: it has no file_name"),
    "no such image": (lambda t: t["annotations"][1].update(image_id=7), "annotation 503: its image_id 7 is not in"),
    "no such category": (lambda t: t["annotations"][1].update(category_id=[2]), r"its category_id \[2\] is not in"),
    "half a box": (lambda t: t["annotations"][1].update(bbox=[1, 2, 3]), "annotation 503: its bbox must be four"),
    "a box of nothing": (lambda t: t["annotations"][1].update(bbox=[1, 2, None, 4]), "its bbox must be four numbers"),
    "no area": (lambda t: t["annotations"][1].update(area="big"), "its area must be a number, got 'big'"),
    "a name for an id": (lambda t: t["annotations"][1].update(id="x"), "must be a whole number of 64 bits, got 'x'"),
    "an id without end": (lambda t: t["annotations"][1].update(id=2**70), "its id must be a whole number of 64 bits"),
    "rows without end": (lambda t: t["images"][1].update(height=2**70), "its height must be a whole number of 64 bits"),
    "half a crowd": (lambda t: t["annotations"][1].update(iscrowd="0"), "its iscrowd must be 0 or 1, got '0'"),
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
    "a part of two points": ([[1, 2, 9, 2, 9, 9], [1, 2, 3, 4]], "a polygon needs three points"),
    "half a point": ([[1, 2, 9, 2, 9, 9, 3]], "a polygon needs three points"),
    "words": ([["a"] * 6], "a place that is no number"),
    "holes": ([[1, 2, None, 4, 5, 6]], "a place that is no number"),
    "no number": ([[1, 2, float("nan"), 4, 5, 6]], "a place that is no number"),
    "far away": ([[1, 2, 1e8, 4, 5, 6]], "a place that is no number"),
    "nothing": ("x", "it is neither polygons nor runs"),
    "short runs": ({"size": [40, 60], "counts": [3, 4]}, "its runs are of 7 pixels, the image has 2400"),
    "other size": ({"size": [40, 61], "counts": [3, 4]}, r"its runs are of \[40, 61\] rows and columns"),
    "one side": ({"size": 40, "counts": [3, 4]}, "its runs are of 40 rows and columns"),
    "squeezed, short": ({"size": [40, 60], "counts": "TQ2"}, "its runs are of 2084 pixels, the image has 2400"),
    "squeezed, letters": ({"size": [40, 60], "counts": "zz"}, "its runs have a letter that compressed ones do not"),
    "squeezed, torn": ({"size": [40, 60], "counts": "PP"}, "its runs end within one"),
    "squeezed, none": ({"size": [40, 60], "counts": ""}, "its runs are of 0 pixels, the image has 2400"),
    "squeezed, backwards": ({"size": [40, 60], "counts": "N"}, "a run is no count of pixels"),
    "no counts": ({"size": [40, 60]}, "its runs have no counts"),
}


@pytest.mark.parametrize("side", ["train", "val"])
@pytest.mark.parametrize("damage", SHAPES)
def test_a_damaged_segmentation_is_told_before_training(own, damage, side):
    shape, told = SHAPES[damage]
    edit(annotations(own, side), lambda t: t["annotations"][0].update(segmentation=shape))
    with pytest.raises(DataError, match=rf"{side}2017.json has 1 objects .*none, annotation 500 the first: .*{told}"):
        load(own)
    assert len(load(own, masks=False).train) == 4


def test_a_segmentation_that_nothing_learns_from_is_not_asked_for(own):
    """The seventh object has no extent within its image, and the ninth is a crowd."""
    edit(annotations(own), lambda t: [each.update(segmentation=[[1, 2]]) for each in t["annotations"][6:9:2]])
    assert len(load(own).train) == 4


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
    with pytest.raises(
        DataError, match="coco needs --data.path, the path of its folder, got none. Fetch train2017.zip"
    ):
        load_detection(DetectionData(name="coco"), masks=True)
    with pytest.raises(DataError, match="folder needs --data.path.*A folder in COCO's format holds train/"):
        load_detection(DetectionData(name="folder"), masks=True)


def test_an_image_of_another_size_than_its_annotations_is_refused(own):
    Image.new("RGB", (20, 30)).save(sorted((own / "train2017").iterdir())[-1])
    with pytest.raises(DataError, match="has 30 rows and 20 columns, .* says 40 and 60"):
        load(own).train.item(0)
