"""Which recipes of detectors are refused before anything is trained, and in which sentence."""

from dataclasses import replace

import pytest
import torch

from data.detection_miniatures import coco
from foveal.errors import OptionError
from foveal.tasks.detection.kind import network
from foveal.tasks.detection.recipe import DetectionModel
from foveal.tasks.recipe_check import check
from tests.tasks.detection_sample import small

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
