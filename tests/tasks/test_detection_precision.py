"""Average precision as pycocotools counts it, and the records of what was found."""

import json
import shutil

import numpy as np
import pytest
import torch

from data.detection_miniatures import coco, edit
from foveal.data.detection.annotations import read_annotations
from foveal.data.detection.rle import area, decode, encode
from foveal.models.detection import masks_in_boxes
from foveal.tasks.detection.kind import KIND, network
from foveal.tasks.detection.precision import Precision, records
from tests.tasks.detection_sample import small, task_of

pytest.importorskip("faster_coco_eval")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return coco(tmp_path_factory.mktemp("coco") / "coco")


def found_of(truth, seed=0):
    """Detections as a middling detector would have them: shifted boxes, blurred masks, wrong classes, ties, nothing."""
    chance = np.random.default_rng(seed)
    told = []
    for image in truth["images"]:
        own = [each for each in truth["annotations"] if each["image_id"] == image["id"]]
        size = (image["height"], image["width"])
        for each in own * 3:
            box = (np.array(each["bbox"]) + chance.normal(0, 2, 4)).clip(0.5)
            mask = np.zeros(size, bool)
            left, top, width, height = box.astype(int)
            mask[top : top + height, left : left + width] = True
            kinds = [kind["id"] for kind in truth["categories"]]
            kind = each["category_id"] if chance.random() < 0.8 else int(chance.choice(kinds))
            told.append(
                {"image_id": image["id"], "category_id": kind, "bbox": box.round(2).tolist(),
                 "score": round(float(chance.random()), 1), "segmentation": encode(mask)}
            )  # fmt: skip
    return told


@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("kind", ["box", "mask"])
def test_precision_is_that_of_pycocotools(folder, tmp_path, kind):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    path = folder / "annotations" / "instances_train2017.json"
    told = read_annotations(path)
    truth = told.truth(range(len(told.ids)), shapes=True)
    found = found_of(truth)
    before = json.dumps(found)
    # With boxes beside the masks pycocotools sorts what was found by the area of the box.
    without = {"box": "segmentation", "mask": "bbox"}[kind]
    asked = [{name: value for name, value in each.items() if name != without} for each in found]
    (tmp_path / "found.json").write_text(json.dumps(asked))
    theirs = COCO(str(path))
    counted = COCOeval(theirs, theirs.loadRes(str(tmp_path / "found.json")), {"box": "bbox", "mask": "segm"}[kind])
    counted.evaluate()
    counted.accumulate()
    counted.summarize()
    ours = Precision(truth, found, kind)
    wanted = dict(zip(("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"), counted.stats[:6], strict=True))
    wanted = {f"{kind}_{name}": float(value) for name, value in wanted.items() if value > -1}
    assert set(ours.metrics()) == set(wanted) and 0.1 < wanted[f"{kind}_ap"] < 0.9
    assert ours.metrics() == pytest.approx(wanted, abs=1e-12)
    of_class = counted.eval["precision"][:, :, :, 0, -1]
    assert list(ours.by_class().values()) == pytest.approx([of_class[:, :, n].mean() for n in range(3)], abs=1e-12)
    assert json.dumps(found) == before, "counting writes into what it counts"


def thin():
    """A picture with one object of medium size, found, and above it a thin one that is not there, in a large box."""
    square, line = np.zeros((200, 200), bool), np.zeros((200, 200), bool)
    square[10:50, 10:50] = True
    line[100:160, 100:160] = np.eye(60, dtype=bool)
    entry = {"image_id": 1, "category_id": 1}
    known = {**entry, "id": 1, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0, "segmentation": encode(square)}
    image, kind = {"id": 1, "height": 200, "width": 200}, {"id": 1, "name": "thing"}
    found = [
        {**entry, "bbox": [100.0, 100.0, 60.0, 60.0], "score": 0.9, "segmentation": encode(line)},
        {**entry, "bbox": [10.0, 10.0, 40.0, 40.0], "score": 0.8, "segmentation": encode(square)},
    ]
    return {"info": {}, "images": [image], "categories": [kind], "annotations": [known]}, found


def test_masks_are_small_medium_or_large_by_their_own_area():
    truth, found = thin()
    told = Precision(truth, found, "mask").metrics()
    # The line has 60 pixels, its box 3600: it is no mistake among masks of medium size.
    assert told["mask_ap_medium"] == pytest.approx(1) and told["mask_ap"] == pytest.approx(0.5)
    assert Precision(truth, found, "box").metrics()["box_ap_medium"] == pytest.approx(0.5)


@pytest.mark.parametrize("ids", [(0, 1), (7, 7)])
def test_precision_does_not_depend_on_the_ids_of_objects(ids):
    truth, found = thin()
    (known,), moved = truth["annotations"], {"bbox": [60, 60, 40, 40]}
    truth["annotations"] = [{**known, "id": ids[0]}, {**known, **moved, "id": ids[1]}]
    assert Precision(truth, [found[1], {**found[1], **moved}], "box").metrics()["box_ap"] == pytest.approx(1)


def test_what_has_no_object_has_no_figure_and_what_is_not_found_has_zero(folder):
    told = read_annotations(folder / "annotations" / "instances_val2017.json")
    truth = told.truth(range(len(told.ids)), shapes=False)
    nothing = Precision(truth, [], "box").metrics()
    assert set(nothing.values()) == {0.0} and "box_ap_large" not in nothing
    assert set(Precision(truth, found_of(truth), "box").metrics()) == set(nothing)
    without = {**truth, "annotations": [each for each in truth["annotations"] if each["category_id"] != 18]}
    assert Precision(without, found_of(truth), "box").by_class()[18] is None


def test_records_have_original_ids_sides_and_masks_of_the_image():
    found = {
        "boxes": torch.tensor([[1.5, 2.0, 11.5, 8.0], [0.0, 0.0, 4.0, 4.0], [2.0, 2.0, 6.0, 6.0]]),
        "labels": torch.tensor([2, 1, 0]), "scores": torch.tensor([0.75, 0.5, 0.9]),
        "masks": torch.ones(3, 1, 28, 28),
    }  # fmt: skip
    told = records(found, 77, (12, 15), [5, 9])
    assert [(each["image_id"], each["category_id"], each["score"]) for each in told] == [(77, 9, 0.75), (77, 5, 0.5)]
    assert told[0]["bbox"] == [1.5, 2.0, 10.0, 6.0]
    assert decode(told[0]["segmentation"]).shape == (12, 15)
    assert 60 <= area(told[0]["segmentation"]) <= (10 + 2) * (6 + 2)
    assert [each["category_id"] for each in records(found, 77, (12, 15), [5, None])] == [5]
    json.dumps(told)


def test_masks_that_stay_in_their_boxes_are_those_that_torchvision_pastes(folder):
    torch.manual_seed(0)
    model = network(small(folder).model, 3).eval()
    images = [torch.rand(3, 40, 60), torch.rand(3, 50, 31)]
    with torch.no_grad():
        whole = model(images)
        with masks_in_boxes(model):
            parts = model(images)
        again = model(images)
    for one, other, image in zip(whole, parts, images, strict=True):
        assert len(one["boxes"]) and torch.equal(one["boxes"], other["boxes"])
        assert other["masks"].shape[1:] == (1, 28, 28)
        told = records(other, 1, tuple(image.shape[1:]), [1, 2, 3])
        for record, mask in zip(told, one["masks"][one["labels"] > 0], strict=True):
            assert np.array_equal(decode(record["segmentation"]), (mask[0] > 0.5).numpy())
    assert torch.equal(whole[0]["masks"], again[0]["masks"])


def test_evaluation_counts_what_the_results_file_holds(folder, tmp_path):
    task = task_of(small(folder))
    task.models["model"].eval()
    metrics = task.evaluate()
    KIND.write_results(task, tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert {each["image_id"] for each in found} == {1000, 993, 986}
    assert {each["category_id"] for each in found} <= {1, 18, 90}
    told = task.data.val.annotations
    truth = told.truth(range(3), shapes=True)
    again = {k: v for kind in ("box", "mask") for k, v in Precision(truth, found, kind).metrics().items()}
    assert again == pytest.approx(metrics, abs=1e-12)
    assert [row["objects"] for row in KIND.by_class(task)] == [1, 2, 1]
    assert [row["class"] for row in KIND.by_class(task)] == ["person", "dog", "toothbrush"]


def test_a_category_may_have_the_name_that_holes_have(folder, tmp_path):
    own = shutil.copytree(folder, tmp_path / "own")
    for side in ("train", "val"):
        path = own / "annotations" / f"instances_{side}2017.json"
        edit(path, lambda told: told["categories"][0].update(name="N/A"))
    task = task_of(small(own))
    task.models["model"].eval()
    task.evaluate()
    assert {each["category_id"] for each in task.results} == {1, 18, 90}


def test_objects_without_extent_do_not_stop_a_run(folder, tmp_path):
    own = shutil.copytree(folder, tmp_path / "own")
    path = own / "annotations" / "instances_val2017.json"
    edit(path, lambda told: told["annotations"][0].update(bbox=[3, 3, 0, 0], area=0))
    task = task_of(small(own))
    task.models["model"].eval()
    assert task.evaluate()["box_ap"] >= 0
