"""Detectors: attention stands where a site says, learns, loads and counts as its paper has it."""

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.detection import MaskRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from foveal.errors import DataError, OptionError
from foveal.layers import EfficientAttention, ExternalAttention, LocalAttention, NonLocal
from foveal.models.detection import SITES, Trunk, faster_rcnn, mask_rcnn, retinanet
from foveal.models.detection.sites import PLACES

KINDS = {"efficient": EfficientAttention, "nonlocal": NonLocal, "external": ExternalAttention}
FEW = {"rpn_post_nms_top_n_train": 10, "rpn_post_nms_top_n_test": 5, "box_batch_size_per_image": 8}
FEW |= {"rpn_pre_nms_top_n_train": 20, "rpn_pre_nms_top_n_test": 20, "box_score_thresh": 0.0, "box_channels": 16}
SMALL = {"num_classes": 3, "min_size": 64, "max_size": 96}
NARROW = {"backbone_options": {"channels": (16, 24, 32, 48), "stem_width": 8}, "pyramid_channels": 32}
NARROW["anchor_sizes"] = (16, 24, 32, 48, 64)


def small(build, name=None, **options):
    """A detector of small images; with a narrow backbone and pyramid where none is named."""
    return build("resnet10t", **NARROW, **SMALL, **options) if name is None else build(name, **SMALL, **options)


BUILDERS = {
    "faster_rcnn": lambda name=None, **options: small(faster_rcnn, name, **FEW, **options),
    "mask_rcnn": lambda name=None, **options: small(mask_rcnn, name, **FEW, mask_channels=8, **options),
    "retinanet": lambda name=None, **options: small(retinanet, name, score_thresh=0.0, **options),
}
DETECTIONS = {"faster_rcnn": {"boxes", "labels", "scores"}}
DETECTIONS |= {"retinanet": DETECTIONS["faster_rcnn"], "mask_rcnn": {*DETECTIONS["faster_rcnn"], "masks"}}
EVERY_GROUP = {"local_heads": True, "local_pyramid": True}


def images():
    return [torch.rand(3, 64, 96), torch.rand(3, 71, 50)]


def targets():
    """One image with two objects, one without any."""
    boxes = torch.tensor([[4.0, 5.0, 30.0, 40.0], [30.0, 20.0, 80.0, 60.0]])
    masks = torch.zeros(2, 64, 96, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    full = {"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks}
    return [full, {**empty, "masks": torch.zeros(0, 71, 50, dtype=torch.uint8)}]


def on_meta(build, *args, **options):
    with torch.device("meta"):
        return build(*args, **options)


def count(model):
    return sum(p.numel() for p in model.parameters())


def attentions(model):
    found = model.backbone.named_modules()
    return {name: module for name, module in found if isinstance(module, tuple(KINDS.values()))}


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("builder", BUILDERS)
def test_a_detector_with_a_mechanism_at_every_site_detects_in_images_of_any_size(builder, attention):
    model = BUILDERS[builder](attention=attention, sites=SITES).eval()
    places = [name.rpartition(".")[0] for name in attentions(model)]
    assert set(places) == set(PLACES.values()) and len(places) == 9
    assert all(type(layer) is KINDS[attention] for layer in attentions(model).values())
    given = images()
    with torch.no_grad():
        found = model(given)
    for image, one in zip(given, found, strict=True):
        assert set(one) == DETECTIONS[builder]
        assert len(one["boxes"]) > 0
        assert one["boxes"].isfinite().all()
        sides = torch.tensor([image.shape[2], image.shape[1]] * 2)
        assert (one["boxes"] >= 0).all() and (one["boxes"] <= sides).all()
        assert set(one["labels"].tolist()) <= {0, 1, 2}


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(0)
    return {name: build().eval() for name, build in BUILDERS.items() if name != "mask_rcnn"}


@pytest.mark.filterwarnings("ignore:.*from before a graft")
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("builder", ["faster_rcnn", "retinanet"])
def test_attention_changes_what_comes_after_its_site_and_nothing_else(builder, site, plain):
    model = BUILDERS[builder](attention="efficient", sites=[site]).eval()
    model.load_state_dict(plain[builder].state_dict(), strict=False)
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        maps = [plain[builder].backbone(x), model.backbone(x)]
    changed = [not torch.equal(a, b) for a, b in zip(*(m.values() for m in maps), strict=True)]
    level = int(site[-1]) - 1
    # The top-down path carries what a group gives to every finer level, and groups behind it to the coarser ones.
    assert changed == ([n == level for n in range(5)] if site.startswith("fpn") else [True] * 5)


@pytest.mark.parametrize(
    ("builder", "options"),
    [
        ("mask_rcnn", {"attention": "efficient", "sites": ("res3", "fpn1", "fpn2")}),
        ("faster_rcnn", {"attention": "nonlocal", "sites": ("res3", "fpn3"), "projection": "always"}),
        ("retinanet", {"name": "foveal_local_resnet26", "attention": "external", "sites": ("res4",), **EVERY_GROUP}),
    ],
)
def test_one_step_reaches_every_parameter_of_attention_even_where_an_image_has_no_object(builder, options):
    model = BUILDERS[builder](**options).train()
    for module in model.modules():
        # Norms that start at zero hide the gradients of what they multiply.
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.ones_(module.weight)
    losses = model(images(), targets())
    assert all(loss.isfinite() for loss in losses.values()) and len(losses) >= 2
    sum(losses.values()).backward()
    kinds = (*KINDS.values(), LocalAttention)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    assert layers
    still = [f"{a}.{b}" for a, layer in layers.items() for b, p in layer.named_parameters() if not _moves(p)]
    # A softmax over keys does not see what all keys have in common.
    assert [name for name in still if not name.endswith("key.bias")] == []
    torch.optim.SGD(model.parameters(), 1e-3).step()
    assert all(p.isfinite().all() for p in model.parameters())


def _moves(parameter):
    return parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any()


@pytest.mark.parametrize("builder", BUILDERS)
def test_images_without_any_object_train(builder):
    model = BUILDERS[builder](attention="efficient", sites=["fpn4"]).train()
    empty = targets()[1]
    losses = model([torch.rand(3, 71, 50)] * 2, [empty, empty])
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert _moves(model.backbone.fpn.extra_blocks.outputs.fpn4.attention.value.weight)


@pytest.mark.parametrize("attention", KINDS)
def test_a_state_dict_comes_back_with_the_same_outputs(attention):
    made = {"attention": attention, "sites": ("res2", "fpn5")}
    first, second = (BUILDERS["retinanet"](**made).eval() for _ in range(2))
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert not torch.equal(Trunk(first)(x)[0], Trunk(second)(x)[0])
        second.load_state_dict(first.state_dict())
        for a, b in zip(Trunk(first)(x), Trunk(second)(x), strict=True):
            assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore:.*from before a graft")
@pytest.mark.parametrize("attention", KINDS)
def test_attention_that_starts_as_the_identity_leaves_every_detection_as_it_is(attention, plain):
    model = BUILDERS["retinanet"](attention=attention, sites=SITES, identity=True).eval()
    model.load_state_dict(plain["retinanet"].state_dict(), strict=False)
    given = images()
    with torch.no_grad():
        for now, before in zip(model(given), plain["retinanet"](given), strict=True):
            assert len(now["boxes"]) > 0
            assert all(torch.equal(now[key], before[key]) for key in before)


THEIRS = {"mask_rcnn": (MaskRCNN, mask_rcnn), "retinanet": (RetinaNet, retinanet)}


@pytest.mark.filterwarnings("ignore:.*from before a graft")
@pytest.mark.parametrize(("builder", "attention"), [("mask_rcnn", "efficient"), ("retinanet", "external")])
def test_attention_that_starts_as_the_identity_keeps_torchvisions_losses_and_detections_to_the_bit(builder, attention):
    """With torchvision's own model and weights, not ours without attention."""
    own, build = THEIRS[builder]
    rcnn = {key: value for key, value in FEW.items() if key != "box_channels"}
    options = SMALL | ({"score_thresh": 0.0} if builder == "retinanet" else rcnn)
    levels = {"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 256)} if builder == "retinanet" else {}
    body = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5, **levels
    )
    first, second = own(body, **options), build("resnet18", attention=attention, sites=SITES, identity=True, **options)
    second.load_state_dict(first.state_dict(), strict=False)
    given, told = images(), []
    for model in (first, second):
        torch.manual_seed(1)
        losses = model.train()([image.clone() for image in given], targets())
        with torch.no_grad():
            told.append((losses, model.eval()([image.clone() for image in given])))
    (losses, found), (losses_now, found_now) = told
    assert all(torch.equal(losses_now[name], value) for name, value in losses.items())
    assert all(len(one["boxes"]) > 0 for one in found)
    assert all(torch.equal(b[name], a[name]) for a, b in zip(found, found_now, strict=True) for name in a)


@pytest.mark.parametrize(("builder", "theirs"), [(mask_rcnn, "mask"), (faster_rcnn, "faster"), (retinanet, "retina")])
def test_without_attention_keys_and_shapes_are_those_of_torchvision(builder, theirs):
    make = getattr(torchvision.models.detection, f"{theirs}{'net' if theirs == 'retina' else 'rcnn'}_resnet50_fpn")
    wanted = on_meta(make, weights=None, weights_backbone=None).state_dict()
    ours = on_meta(builder, norm="batch").state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in wanted.items()}


@pytest.mark.parametrize(
    ("site", "added"),
    [("res1", 98_688), ("res2", 328_320), ("res3", 1_180_800), ("res4", 4_458_624), ("fpn1", 98_688)],
)
@pytest.mark.parametrize("attention", ["efficient", "nonlocal"])
def test_a_module_adds_the_parameters_of_the_papers_three_projections(site, added, attention):
    layer = next(iter(attentions(on_meta(mask_rcnn, attention=attention, sites=[site])).values()))
    assert count(layer) == added


def test_the_codes_modules_have_an_output_projection():
    d = 256
    made = {"sites": ["fpn1"], "projection": "always"}
    layers = [
        next(iter(attentions(on_meta(mask_rcnn, attention=a, **made)).values())) for a in KINDS if a != "external"
    ]
    assert count(layers[0]) == 98_688 + d * d + d
    assert count(layers[1]) == 98_688 + d * d + d + 2 * d  # and a norm


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("resnet50", 44_454_513), ("resnet101", 63_446_641), ("resnext101_32x8d", 107_688_817)],
)
def test_mask_rcnn_has_the_backbones_of_the_paper(name, parameters):
    assert count(on_meta(mask_rcnn, name)) == parameters


def test_key_channels_slots_and_normalization_reach_the_modules():
    made = {"sites": ["fpn1", "res3"], "attention": "efficient"}
    for layer in attentions(on_meta(mask_rcnn, key_channels=32, normalization="scaling", **made)).values():
        assert (layer.query.out_features, layer.normalization) == (32, "scaling")
        assert layer.value.out_features == layer.channels
    made["attention"] = "external"
    layers = attentions(on_meta(mask_rcnn, slots=16, **made)).values()
    assert [(layer.slots, layer.activation) for layer in layers] == [(16, True), (16, False)]


def test_heads_and_pyramid_of_local_attention_have_no_3x3_convolution():
    model = on_meta(retinanet, "foveal_local_resnet50_attention_stem", **EVERY_GROUP)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert convs and all(conv.kernel_size == (1, 1) for conv in convs)
    local = {name: m for name, m in model.named_modules() if isinstance(m, LocalAttention) and "body" not in name}
    assert len(local) == 3 + 2 + 2 * 5
    assert all((m.kernel_size, m.heads, m.channels_out) == (7, 8, 256) for m in local.values())
    strides = {name: m.stride for name, m in local.items()}
    assert {name for name, stride in strides.items() if stride == 2} == {
        "backbone.fpn.extra_blocks.p6", "backbone.fpn.extra_blocks.p7"
    }  # fmt: skip


def test_values_of_local_heads_start_small_and_classes_rare():
    head = retinanet("resnet18", num_classes=3, local_heads=True).head
    values = [m.value.weight.std().item() for m in head.modules() if isinstance(m, LocalAttention)]
    assert len(values) == 10
    assert values == pytest.approx([0.01] * 10, rel=0.05)
    assert head.classification_head.cls_logits[1].bias.sigmoid().tolist() == pytest.approx([0.01] * 27, rel=1e-4)
    assert not head.regression_head.bbox_reg[1].bias.any()


def test_scales_are_anchors_an_octave_and_three_are_torchvisions():
    from torchvision.models.detection.retinanet import _default_anchorgen

    assert retinanet("resnet18", num_classes=2).anchor_generator.sizes == _default_anchorgen().sizes
    two = retinanet("resnet18", num_classes=2, scales=2)
    assert two.anchor_generator.sizes[0] == (32, 45)
    assert two.head.classification_head.cls_logits.out_channels == 2 * 3 * 2


@pytest.mark.parametrize(("norm", "learned", "kind"), [
    ("batch", True, nn.BatchNorm2d), ("sync", True, nn.SyncBatchNorm),
    ("frozen", False, torchvision.ops.FrozenBatchNorm2d),
])  # fmt: skip
@pytest.mark.parametrize("name", ["resnet18", "foveal_local_resnet26"])
def test_the_norm_of_the_backbone_is_the_one_that_is_asked_for(norm, learned, kind, name):
    body = on_meta(faster_rcnn, name, norm=norm, num_classes=2).backbone.body
    assert type(body["bn1"]) is kind or (kind is nn.BatchNorm2d and isinstance(body["bn1"], kind))
    assert any("bn1.weight" in key for key, _ in body.named_parameters()) is learned


def test_attention_with_norms_of_its_own_follows_sync():
    model = BUILDERS["faster_rcnn"](attention="external", sites=["res4"], norm="sync")
    kinds = {type(m) for m in model.backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    assert kinds == {nn.SyncBatchNorm}
    model.eval()(images())


def test_a_frozen_backbone_of_timm_starts_with_open_blocks():
    body = faster_rcnn("foveal_resnet26", num_classes=2, norm="frozen").backbone.body
    assert body["layer1"][0].bn3.weight.eq(1).all()


def test_weights_of_a_classifier_fill_the_backbone_and_freeze_its_first_groups(tmp_path):
    classifier = torchvision.models.resnet18(weights=None)
    torch.save(classifier.state_dict(), tmp_path / "resnet18.pth")
    model = faster_rcnn("resnet18", num_classes=2, weights_backbone=tmp_path / "resnet18.pth", norm="frozen",
                        attention="efficient", sites=["res1"])  # fmt: skip
    body = model.backbone.body
    assert torch.equal(body["layer4"][1].conv2.weight, classifier.layer4[1].conv2.weight)
    learning = {
        name.split(".")[0] for name, p in body.named_parameters() if p.requires_grad and "attention" not in name
    }
    assert learning == {"layer2", "layer3", "layer4"}
    assert all(p.requires_grad for p in body["layer1"].attention.parameters())
    with pytest.raises(DataError, match=r"does not fit .*Use the model that it was made with"):
        faster_rcnn("resnet34", num_classes=2, weights_backbone=tmp_path / "resnet18.pth")


@pytest.mark.parametrize(("layers", "first"), [(0, None), (1, "layer4"), (4, "layer1"), (5, "conv1")])
def test_groups_that_learn_are_counted_from_the_last(layers, first):
    body = on_meta(faster_rcnn, "resnet18", num_classes=2, trainable_layers=layers).backbone.body
    learning = [name.split(".")[0] for name, p in body.named_parameters() if p.requires_grad]
    assert (learning[0] if learning else None) == first


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        (
            {"attention": "efficient", "sites": ["res5"]},
            OptionError,
            "there is no site 'res5' .* Use some of res1, res2",
        ),
        ({"attention": "efficient"}, OptionError, r"come together, got attention='efficient' and sites=\(\)"),
        ({"sites": ["res3"]}, OptionError, "Pass both or neither"),
        ({"attention": "efficient", "sites": ["fpn1", "fpn1"]}, OptionError, "named once each"),
        ({"attention": "dot", "sites": ["fpn1"]}, OptionError, "attention must be one of"),
        ({"attention": "efficient", "sites": ["fpn1"], "projection": "auto"}, OptionError, "projection must be one of"),
        ({"norm": "layer"}, OptionError, "norm must be one of"),
        ({"trainable_layers": 6}, OptionError, "trainable_layers must be 0 to 5, got 6"),
        ({"min_sise": 64}, OptionError, "has no option 'min_sise'. Did you mean min_size"),
        ({"bakbone": "resnet18"}, OptionError, "has no option 'bakbone'. Did you mean backbone"),
        ({"piramid_channels": 64}, OptionError, "Did you mean pyramid_channels"),
        ({"num_classes": 1}, OptionError, "num_classes must be an integer of at least 2"),
        ({"weights_backbone": "nowhere.pth"}, DataError, "nowhere.pth cannot be read"),
    ],
)
@pytest.mark.parametrize("build", [faster_rcnn, mask_rcnn, retinanet])
def test_a_wrong_option_is_refused_in_a_sentence(build, options, error, told):
    with pytest.raises(error, match=told) as raised:
        build("resnet18", **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "told"), [
    ("resnet55", "timm has no model 'resnet55'"), ("vit_tiny_patch16_224", "which vit_tiny_patch16_224 does not have"),
])  # fmt: skip
def test_a_backbone_without_four_groups_is_refused(name, told):
    with pytest.raises(OptionError, match=told):
        on_meta(faster_rcnn, name, num_classes=2)


def test_narrow_detectors_have_the_widths_that_are_asked_for():
    narrow = {"backbone_options": {"channels": (8, 16, 24, 32), "stem_width": 8}, "pyramid_channels": 24}
    model = on_meta(
        mask_rcnn, "resnet10t", box_channels=40, mask_channels=12, anchor_sizes=(8, 16, 24, 32, 48), **narrow
    )
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes["backbone.fpn.inner_blocks.3.0.weight"] == (24, 32, 1, 1)
    assert shapes["roi_heads.box_head.fc6.weight"] == (40, 24 * 49)
    assert shapes["roi_heads.mask_head.0.0.weight"] == (12, 24, 3, 3)
    assert model.rpn.anchor_generator.sizes == ((8,), (16,), (24,), (32,), (48,))
    local = on_meta(retinanet, "resnet10t", local_heads=True, local_pyramid=True, anchor_sizes=(8, 16, 24, 32, 48),
                    scales=1, **narrow)  # fmt: skip
    assert all(m.channels_out == 24 for m in local.modules() if isinstance(m, LocalAttention))
    assert local.anchor_generator.sizes[0] == (8,)


def test_scales_below_one_are_refused():
    with pytest.raises(OptionError, match="scales must be an integer of at least 1, got 0"):
        retinanet("resnet18", scales=0)


@pytest.mark.parametrize("builder", ["faster_rcnn", "mask_rcnn"])
def test_what_a_detector_finds_does_not_depend_on_the_image_that_it_saw_first(builder):
    torch.manual_seed(0)
    model = BUILDERS[builder]().eval()
    # Padded to 64 x 96, which is another size by more than a half.
    flat, full = torch.rand(3, 40, 96), torch.rand(3, 64, 96)
    again = BUILDERS[builder]().eval()
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        model([flat])
        one, other = model([full])[0], again([full])[0]
    assert len(one["boxes"]) and all(torch.equal(one[name], other[name]) for name in other)


def test_the_poolers_have_the_strides_of_the_levels_and_building_leaves_no_trace():
    model = BUILDERS["mask_rcnn"]()
    for pool in (model.roi_heads.box_roi_pool, model.roi_heads.mask_roi_pool):
        assert pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]
        assert (pool.map_levels.k_min, pool.map_levels.k_max) == (2, 5)
    assert all(module.training for module in model.modules())
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and not any(norm.num_batches_tracked for norm in norms)
    dilated = small(
        faster_rcnn, "resnet50", **FEW, backbone_options={"replace_stride_with_dilation": [False, False, True]}
    )
    assert dilated.roi_heads.box_roi_pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 16]
