"""Weights that were trained on some classes start a model of others: all but what has a row for each class."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from foveal.errors import DataError
from foveal.tasks.detection import kind as detection
from foveal.tasks.detection.recipe import DetectionModel
from foveal.tasks.recipe import NamedModel
from foveal.tasks.segmentation.networks import network as segmenter

NARROW = {
    "backbone": "resnet10t", "backbone_options": {"channels": [8, 8, 8, 8], "stem_width": 8}, "pyramid_channels": 32,
}  # fmt: skip
R_CNN = {**NARROW, "box_channels": 8, "mask_channels": 8}
EANET = {"depth": 10, "stem": "small", "output_stride": 8, "channels": [8, 8, 8, 8], "width": 8}


@pytest.mark.parametrize(
    ("make", "model", "anew"),
    [
        (detection.network, DetectionModel("mask_rcnn", R_CNN), 6),
        (detection.network, DetectionModel("retinanet", NARROW), 2),
        (detection.network, DetectionModel("retinanet", {**NARROW, "local_heads": True}), 2),
        (segmenter, NamedModel("eanet", EANET), 2),
    ],
    ids=["mask_rcnn", "retinanet", "local heads", "eanet"],
)
def test_all_but_the_classes_is_taken(tmp_path, make, model, anew):
    path = tmp_path / "five.pth"
    five = make(model, 5).state_dict()
    torch.save(five, path)
    seven = make(replace(model, weights=str(path)), 7, load=True).state_dict()
    taken = [key for key in seven if seven[key].shape == five[key].shape]
    assert len(seven) - len(taken) == anew
    assert all(torch.equal(seven[key], five[key]) for key in taken if "num_batches" not in key)


def test_another_model_is_still_refused(tmp_path):
    path = tmp_path / "five.pth"
    torch.save(detection.network(DetectionModel("retinanet", NARROW), 5).state_dict(), path)
    with pytest.raises(DataError, match=r"does not fit MaskRCNN; of its \d+ tensors"):
        detection.network(DetectionModel("mask_rcnn", R_CNN, weights=str(path)), 5, load=True)
