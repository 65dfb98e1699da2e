"""Finding objects: precision as pycocotools counts it, losses, exact resume, results and answers."""

import json
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from data.detection_miniatures import coco, edit
from foveal.cli import main
from foveal.data.detection.annotations import read_annotations
from foveal.data.detection.options import DetectionData
from foveal.data.detection.rle import area, decode, encode
from foveal.errors import OptionError
from foveal.models.detection import masks_in_boxes
from foveal.tasks import checkpoint
from foveal.tasks.detection.answers import answers
from foveal.tasks.detection.kind import KIND, network
from foveal.tasks.detection.precision import Precision, records
from foveal.tasks.detection.recipe import DetectionModel, DetectionRecipe
from foveal.tasks.kind import Asked
from foveal.tasks.opened import open_models
from foveal.tasks.recipe import OptimizerOptions
from foveal.tasks.recipe_check import check
from foveal.tasks.run_folder import read_metrics
from foveal.tasks.train import train
from foveal.viz.detections import COLOURS, LEAST, Seen, drawn

pytest.importorskip("faster_coco_eval")
NARROW = {
    "backbone": "resnet10t", "backbone_options": {"channels": [8, 8, 16, 16], "stem_width": 8},
    "pyramid_channels": 16, "anchor_sizes": [8, 16, 24, 32, 48], "min_size": 48, "max_size": 64,
}  # fmt: skip
FEW = {
    "rpn_pre_nms_top_n_train": 40, "rpn_post_nms_top_n_train": 20, "rpn_pre_nms_top_n_test": 40,
    "rpn_post_nms_top_n_test": 10, "box_batch_size_per_image": 16, "box_channels": 16, "box_score_thresh": 0.0,
}  # fmt: skip
MODELS = {
    "mask_rcnn": {**NARROW, **FEW, "mask_channels": 8, "attention": "efficient", "sites": ["res4", "fpn2"]},
    "faster_rcnn": {**NARROW, **FEW},
    "retinanet": {**NARROW, "score_thresh": 0.0, "detections_per_img": 10},
}
LOSSES = {"mask_rcnn": {"loss", "loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}}
LOSSES |= {"faster_rcnn": LOSSES["mask_rcnn"] - {"loss_mask"}, "retinanet": {"loss", "loss_classifier", "loss_box_reg"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return coco(tmp_path_factory.mktemp("coco") / "coco")


def small(folder, name="mask_rcnn", **options):
    return DetectionRecipe(
        data=DetectionData(name="coco", path=str(folder), empty=True, workers=0),
        model=DetectionModel(name, MODELS[name]),
        optimizer=OptimizerOptions("sgd", 0.01),
        **{"epochs": 2, "batch_size": 2, "seed": 1, **options},
    )


def task_of(recipe):
    task = KIND.task(recipe, KIND.load(recipe))
    torch.manual_seed(0)
    task.build()
    return task


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


@pytest.mark.parametrize("name", MODELS)
def test_a_step_on_images_of_several_sizes_and_without_objects_tells_every_loss(name, folder):
    task = task_of(small(folder, name, batch_size=6))
    (batch,) = next(iter(task.batches(0, 0, 0)))
    (images, targets), _ = batch
    assert len({image.shape for image in images}) > 3 and any(len(each["boxes"]) == 0 for each in targets)
    assert ("masks" in targets[0]) is (name == "mask_rcnn")
    task.models["model"].train()
    told = task.step(batch, "model")
    assert set(told) == LOSSES[name] and all(value.isfinite() for value in told.values())
    assert told["loss"].item() == pytest.approx(sum(v.item() for k, v in told.items() if k != "loss"), rel=1e-5)
    told["loss"].backward()
    assert task.size(batch) == 6


def test_a_step_without_a_single_object_is_finite(folder):
    task = task_of(small(folder))
    images, targets = task.train.batch([4, 5])
    assert [len(each["boxes"]) for each in targets] == [0, 0]
    task.models["model"].train()
    told = task.step(((images, targets), (0, 0, 0)), "model")
    assert all(value.isfinite() for value in told.values())
    told["loss"].backward()


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


@pytest.mark.parametrize("which", ["mask_rcnn", "retinanet"])
def test_a_run_that_was_stopped_ends_with_the_same_bits(folder, tmp_path, which):
    recipe = small(folder, which, epochs=2, accumulate=2, ema=0.9)
    train(recipe, tmp_path / "whole", save_seconds=1e9)
    stops = iter((1 / 3, 5 / 3))

    def watch(epochs, metrics):
        if epochs >= watch.until:
            raise KeyboardInterrupt

    for watch.until in stops:
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "cut", watch=watch, save_seconds=0)
    train(recipe, tmp_path / "cut", save_seconds=0)
    one, other = (checkpoint.weights(tmp_path / name) for name in ("whole", "cut"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    lines = [[{**line, "seconds": 0} for line in read_metrics(tmp_path / name)] for name in ("whole", "cut")]
    assert lines[0] == lines[1] and len(lines[0]) == 2


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A run that has learned nothing, whose every answer is told."""
    out = tmp_path_factory.mktemp("run") / "run"
    train(small(folder, epochs=1), out, save_seconds=1e9)
    return out


def test_a_run_is_measured_again_as_it_was(run, folder, tmp_path, capsys):
    assert main(["evaluate", str(run), "--json", "--results", str(tmp_path / "x.json")]) == 0
    told = json.loads(capsys.readouterr().out)
    recorded = told["recorded"]
    assert recorded and {name: told[name] for name in recorded if name in told} == {
        name: value for name, value in recorded.items() if name in told
    }
    assert {"box_ap", "mask_ap"} <= set(told) and len(told["classes"]) == 3
    assert (tmp_path / "x.json").exists()


def test_answers_name_box_and_mask_each_object_and_go_past_damaged_files(run, folder, tmp_path, capsys):
    given = tmp_path / "in"
    given.mkdir()
    Image.new("L", (70, 33), 90).save(given / "grey.png")
    Image.new("RGBA", (20, 200)).save(given / "tall.png")
    (given / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    asked = ["predict", str(run), str(given), "--draw", str(tmp_path / "out"), "--threshold", "0"]
    assert main(asked) == 2
    told = {line["image"].rpartition("/")[2]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert set(told) == {"grey.png", "tall.png", "broken.jpg"}
    assert "error" in told["broken.jpg"] and "objects" not in told["broken.jpg"]
    assert told["grey.png"]["size"] == [33, 70] and told["grey.png"]["objects"]
    for each in told["grey.png"]["objects"]:
        assert each["class"] in ("person", "dog", "toothbrush") and 0 <= each["score"] <= 1
        assert len(each["box"]) == 4 and decode(each["mask"]).shape == (33, 70)
    with Image.open(tmp_path / "out" / "grey.png") as picture:
        assert max(picture.size) >= LEAST
    most = max(each["score"] for line in told.values() for each in line.get("objects", ()))
    main([*asked[:-1], str(min(1.0, most + 1e-4))])
    kept = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert not any(line.get("objects") for line in kept)


def test_a_threshold_below_the_detectors_own_is_kept_to(run, folder):
    opened = open_models(run)
    opened.model.roi_heads.score_thresh = 0.99
    asked = next(iter((folder / "val2017").iterdir()))
    from foveal.tasks.kind import Asked

    low = next(KIND.answers(opened, [str(asked)], Asked(threshold=0.0)))
    high = next(KIND.answers(opened, [str(asked)], Asked(threshold=0.99)))
    assert len(low.record["objects"]) > len(high.record["objects"])
    assert opened.model.roi_heads.score_thresh == 0.99
    with pytest.raises(OptionError, match="--threshold must be at least 0 and at most 1, got 1.5"):
        KIND.answers(opened, [str(asked)], Asked(threshold=1.5))


def test_what_is_found_of_a_class_that_no_category_has_is_no_answer(folder):
    def model(images):
        boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 2.0, 9.0, 9.0]])
        return [{"boxes": boxes, "scores": torch.tensor([0.9, 0.8]), "labels": torch.tensor([2, 3])}]

    detector = torch.nn.Module()
    detector.forward = model
    opened = SimpleNamespace(
        model=detector, told={"classes": ["cat", "N/A", "dog"]}, device="cpu", autocast=nullcontext, source="run"
    )
    (answer,) = answers(opened, [str(sorted((folder / "val2017").iterdir())[0])], Asked())
    assert [each["class"] for each in answer.record["objects"]] == ["dog"]


def test_a_drawing_shows_box_mask_and_name_in_the_colour_of_the_class():
    picture = np.zeros((60, 80, 3), np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[25:45, 30:60] = True
    seen = Seen("dog", 0.9, (20.0, 15.0, 50.0, 40.0), encode(mask), colour=1)
    image = drawn(picture, [seen])
    factor = image.shape[0] // 60
    assert image.shape == (60 * factor, 80 * factor, 3) and max(image.shape) >= LEAST
    colour = np.array(COLOURS[1])
    assert np.array_equal(image[15 * factor, 40 * factor], colour)  # upper side of the box
    inside = image[35 * factor, 45 * factor]
    assert inside.any() and (inside < colour).all()  # tinted
    assert not image[50 * factor, 25 * factor].any()  # in the box, outside the mask
    assert (image[: 15 * factor] == colour).all(-1).sum() > 200  # the name's ground, above the box
    assert not drawn(picture, []).any()


def test_names_beside_each_other_do_not_hide_each_other():
    picture = np.zeros((640, 640, 3), np.uint8)
    objects = [
        Seen("one", 0.9, (100.0, 100.0, 200.0, 200.0), colour=0),
        Seen("two", 0.8, (102.0, 101.0, 198.0, 200.0), colour=1),
    ]
    image = drawn(picture, objects)
    areas = [(image == np.array(COLOURS[n])).all(-1).sum() for n in (0, 1)]
    alone = [(drawn(picture, [each]) == np.array(COLOURS[each.colour])).all(-1).sum() for each in objects]
    assert all(both > 0.6 * one for both, one in zip(areas, alone, strict=True))


def test_weights_to_start_from_are_loaded_where_training_begins(folder, tmp_path):
    from safetensors.torch import save_file

    recipe = small(folder)
    torch.manual_seed(5)
    first = network(recipe.model, 3)
    save_file({name: tensor.contiguous() for name, tensor in first.state_dict().items()}, tmp_path / "w.safetensors")
    recipe = replace(recipe, model=replace(recipe.model, weights=str(tmp_path / "w.safetensors")))
    second = task_of(recipe).models["model"]
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_a_seed_draws_the_same_weights_whatever_attends():
    def weights(**options):
        torch.manual_seed(3)
        kept = {**MODELS["mask_rcnn"], "attention": "none", "sites": [], **options}
        return network(DetectionModel("mask_rcnn", kept), 3).state_dict()

    plain = weights()
    for attention in ("efficient", "nonlocal", "external"):
        other = weights(attention=attention, sites=["res3", "fpn1"])
        theirs = {name.replace(".inner.", ".").replace(".module.", "."): value for name, value in other.items()}
        shared = [name for name in plain if name in other or name in theirs]
        assert len(shared) > 0.8 * len(plain)
        assert all(torch.equal(plain[name], other.get(name, theirs.get(name))) for name in shared)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data.flip": 1.5}, "--data.flip must be at least 0 and at most 1, got 1.5"),
        ({"data.crop": 8}, "--data.crop must be at least 32, got 8"),
        ({"data.crop": 64, "data.jitter": (2.0, 0.5)}, "--data.jitter must rise and be above 0, got 2.0 0.5"),
        ({"data.jitter": (0.5, 2.0)}, "--data.jitter is of what is cropped"),
        ({"model.name": "yolo"}, "--model.name must be one of mask_rcnn, faster_rcnn, retinanet, got 'yolo'"),
        ({"model.name": "retinanet", "best": "mask_ap"}, "--best mask_ap needs a model that learns masks"),
        ({"best": "accuracy"}, "--best must be one of box_ap"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(folder, change, told):
    recipe = small(folder)
    for name, value in change.items():
        part, _, field = name.rpartition(".")
        own = getattr(recipe, part) if part else recipe
        recipe = replace(recipe, **{part: replace(own, **{field: value})}) if part else replace(own, **{field: value})
    with pytest.raises(OptionError, match=told) as raised:
        check(recipe)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num_classes": 3}, "num_classes follows from the data"),
        ({"sites": "res9", "attention": "efficient"}, "there is no site 'res9'"),
        ({"anchor_sizes": [8, 16]}, "anchor_sizes must be 5 sides in pixels"),
        ({"pyramid_channels": 0}, "pyramid_channels must be an integer of at least 1"),
        ({"box_channels": "x"}, "box_channels must be an integer of at least 1, got 'x'"),
        ({"backbone_options": {"depth": 3}}, "does not take backbone_options {'depth': 3}"),
        ({"min_size": "x"}, "min_size must be a number of pixels or several, got 'x'"),
        ({"box_nms_thresh": "x"}, "box_nms_thresh must be a number, got 'x'"),
    ],
)
def test_an_option_that_the_detector_does_not_take_is_refused_in_a_sentence(options, told):
    kept = {"backbone": "resnet10t", **options}
    with torch.device("meta"), pytest.raises(OptionError, match=told) as raised:
        network(DetectionModel("mask_rcnn", kept), 3)
    assert "\n" not in str(raised.value)


def test_objects_without_extent_do_not_stop_a_run(folder, tmp_path):
    import shutil

    own = shutil.copytree(folder, tmp_path / "own")
    path = own / "annotations" / "instances_val2017.json"
    edit(path, lambda told: told["annotations"][0].update(bbox=[3, 3, 0, 0], area=0))
    task = task_of(small(own))
    task.models["model"].eval()
    assert task.evaluate()["box_ap"] >= 0
