"""Which recipes of detectors are refused before anything is trained, and in which sentence."""

import shutil
from dataclasses import replace

import pytest
import torch

from data.detection_miniatures import coco, edit
from foveal.errors import OptionError
from foveal.tasks.detection.kind import KIND, network
from foveal.tasks.detection.recipe import DetectionModel
from foveal.tasks.kind import Opened
from foveal.tasks.measure import measure
from foveal.tasks.recipe_check import check
from foveal.tasks.train import train
from tests.tasks.detection_sample import small, task_of

pytest.importorskip("faster_coco_eval")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return coco(tmp_path_factory.mktemp("coco") / "coco")


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
    ("best", "sizes"), [("box_ap_large", "9,216 to 10,000,000,000"), ("mask_ap_small", "0 to 1,024")]
)
def test_a_best_metric_that_no_object_gives_is_refused_before_training(folder, tmp_path, best, sizes):
    own = shutil.copytree(folder, tmp_path / "own")
    path = own / "annotations" / "instances_val2017.json"
    edit(path, lambda told: [each.update(area=5000) for each in told["annotations"] if not each["iscrowd"]])
    recipe = small(own, best=best)
    check(recipe)
    with pytest.raises(
        OptionError, match=rf"--best {best} is of objects of {sizes} pixels, and .*instances_val2017.json"
    ):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    task_of(small(own, best="box_ap_medium"))


def test_a_run_is_measured_on_data_that_its_best_metric_is_not_of(folder, tmp_path):
    own = shutil.copytree(folder, tmp_path / "own")
    edit(
        own / "annotations" / "instances_val2017.json",
        lambda told: [each.update(area=5000) for each in told["annotations"]],
    )
    recipe = small(folder, best="box_ap_small")
    opened = Opened(KIND.networks(recipe, {"classes": "abc"}), recipe, {}, tmp_path, "narrow")
    opened.model.eval()
    assert "box_ap_small" in measure(opened).metrics
    assert "box_ap_small" not in measure(opened, data_path=str(own)).metrics


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
