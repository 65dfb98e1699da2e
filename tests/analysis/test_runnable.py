"""What is no classifier is counted too: detectors as torchvision prints them, pairs of inputs, clouds, GANs."""

import logging
import warnings

import pytest
import torch
from torch import nn
from torchvision.models import get_model_weights

from foveal import models
from foveal.analysis.advice import advise
from foveal.analysis.cost import cost, growth
from foveal.analysis.count import count
from foveal.analysis.runnable import runnable
from foveal.analysis.target import find
from foveal.errors import OptionError, ShapeError

FRESH = {"weights": None, "weights_backbone": None}
NARROW = {"backbone_options": {"channels": (16, 24, 32, 48), "stem_width": 8}, "pyramid_channels": 32}


def on_meta(name, **options):
    with torch.device("meta"):
        return find(name, options=options)


@pytest.fixture
def mask_rcnn():
    return on_meta("mask_rcnn", backbone="resnet10t", min_size=64, max_size=64, box_channels=16, **NARROW)


@pytest.mark.parametrize(
    "name",
    ["fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2", "retinanet_resnet50_fpn"],
)
def test_a_detector_of_torchvision_has_the_operations_that_torchvision_publishes(name):
    (published,) = get_model_weights(name)
    counted = cost(on_meta(f"torchvision.models.detection:{name}", **FRESH), ())
    assert round(counted.macs / 1e9, 3) == published.meta["_ops"]
    assert counted.check.equal


def test_what_stands_for_a_detector_has_its_parameters_under_their_names():
    model = models.retinanet("resnet10t", **NARROW)
    assert dict(runnable(model).named_parameters()) == dict(model.named_parameters())


def test_a_detector_says_what_was_assumed(mask_rcnn):
    told = cost(mask_rcnn, (40, 64)).assumed
    assert told[:2] == ("images resized to 64 x 64", "1,000 proposals and 100 objects an image, the most it keeps")
    assert cost(mask_rcnn, (), train=True).assumed[1].startswith("512 proposals and 128 objects")


def test_training_a_detector_counts_the_gradients_of_what_was_cut_out(mask_rcnn):
    rows = {row.name: row for row in cost(mask_rcnn, (), train=True).modules}
    for name in ("roi_heads.box_head.fc6", "roi_heads.mask_head.0.0", "rpn.head.cls_logits"):
        assert rows[name].backward_macs == 2 * rows[name].macs > 0
    assert rows[""].kind == "MaskRCNN"


def test_a_mechanism_in_the_backbone_of_a_detector_costs_what_the_detector_then_costs(mask_rcnn):
    told = advise(mask_rcnn, (), names=("efficient",))
    best = next(c for c in told.candidates if c.level == "model")
    assert all(site.startswith("backbone.body.") for site in best.sites)
    assert told.own.macs == cost(mask_rcnn, ()).macs < best.costs.macs
    assert told.assumed


def test_a_gan_costs_what_both_of_its_networks_cost():
    target = find("eagan", options={"width": 8})
    counted, gan = cost(target, ()), target.build(())
    both = [count(part, part.example_inputs(1)).macs for part in (gan.generator, gan.discriminator)]
    rows = {row.name: row for row in counted.modules}
    assert [rows["generator"].macs, rows["discriminator"].macs] == both
    assert (counted.macs, counted.total.kind, counted.inputs) == (sum(both), "GAN", ((1, 128), (1,)))
    # Spectral norms make weights; that is no part of a layer's formula.
    assert counted.check.equal and "Conv2d" in counted.check.kinds


def test_a_gan_of_batches_without_classes_trains():
    counted = cost(find("resnet_gan", options={"width": 8, "num_classes": 0}), (), batch=2, train=True)
    assert counted.inputs == ((2, 128),)
    assert counted.total.backward_macs > counted.total.macs


def test_both_images_of_a_pair_go_through_the_features_of_psmnet():
    counted = cost(find("psmnet", options={"trunk": "basic", "width": 4, "max_disparity": 16}), (32, 48))
    assert counted.inputs == ((1, 3, 32, 48),) * 2
    model = models.psmnet("basic", width=4, max_disparity=16)
    assert counted.macs == count(model.to("meta"), tuple(torch.empty(1, 3, 32, 48, device="meta") for _ in "12")).macs


def test_clouds_grow_by_points_and_none_of_their_operators_is_unknown():
    target = find("pct", options={"groupings": [(16, 4, 16), (8, 4, 32)], "width": 64})
    assert target.default == (1024,) and target.sized((2048,)) == (2048,)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grown = growth(target, [(64,), (128,)])
    assert [step.positions for step in grown.steps] == [64, 128]


def test_a_part_segmenter_takes_clouds_and_their_categories_in_any_batch():
    target = find("part_segmenter", options={"channels": 16, "width": 32, "depth": 1, "hidden": (8, 8)})
    counted = cost(target, (64,), batch=3, train=True)
    assert counted.inputs == ((3, 3, 64), (3,))


@pytest.mark.parametrize("name", models.NETWORKS)
def test_every_network_of_another_task_is_found_by_its_name(name):
    with torch.device("meta"):
        assert find(name).name == name


class Both(nn.Module):
    """A stranger's model that says what it takes."""

    def __init__(self, sizes=(5, 7)):
        super().__init__()
        self.join, self.shift = nn.Bilinear(*sizes, 2), torch.ones(2)

    def example_inputs(self, batch, size):
        return torch.empty(batch, 5), torch.empty(batch, self.join.in2_features)

    def forward(self, a, b):
        return self.join(a, b) + self.shift


class Nothing(nn.Module):
    """Says that it takes what is no tensor."""

    def example_inputs(self, batch, size):
        return ()


def test_a_model_of_ones_own_says_its_inputs_and_may_hold_plain_tensors():
    with pytest.warns(UserWarning, match="_trilinear"):
        counted = cost(find(f"{__name__}:Both"), ())
    assert counted.inputs == ((1, 5), (1, 7))


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        (
            "torch.nn:Bilinear",
            {"in1_features": 3, "in2_features": 3, "out_features": 2},
            "takes input1 and input2. Give",
        ),
        ("torch.nn:ModuleList", {}, "ModuleList has no forward of its own. Name a network inside it"),
        (f"{__name__}:Nothing", {}, "example_inputs of .* must give tensors"),
        ("spct", {"channels": 8, "size": 3}, "cannot be made of"),
    ],
)
def test_what_cannot_be_counted_is_refused_in_a_sentence(name, options, told):
    with pytest.raises(OptionError, match=told):
        cost(find(name, options=options), ())


def test_a_size_that_is_none_of_the_networks_is_refused():
    for size in [(3, 4), (0,)]:
        with pytest.raises(ShapeError, match=r"^spct: --size must be one number of points, got "):
            find("spct").sized(size)
    with pytest.raises(OptionError, match=r"^sagan: --size is for what takes a map"):
        find("sagan", options={"width": 8}).sized((32,))
    with pytest.raises(OptionError, match=r"^spct: --channels must be 3, what it takes, got 4"):
        find("spct", channels=4)


def test_a_model_that_fails_leaves_nothing_in_the_log_of_torch():
    told = []
    handler = logging.Handler()
    handler.emit = told.append
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    logger.addHandler(handler)
    try:
        with pytest.raises(ShapeError, match="does not take an input of 1 x 3 x 224 x 224"):
            cost(find("torch.nn:Linear", options={"in_features": 5, "out_features": 2}), ())
    finally:
        logger.removeHandler(handler)
    assert told == []
    assert not logger.disabled
