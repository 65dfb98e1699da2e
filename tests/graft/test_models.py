"""The three verbs on models of other libraries, with small inputs."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from foveal.errors import ShapeError
from foveal.graft import augment_, insert_, replace_
from foveal.layers.efficient import EfficientAttention
from foveal.layers.explicit import ExplicitAttention
from foveal.layers.local import LocalAttention

from .dummies import Gate, Mean

X = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def build(name):
    if name == "torchvision resnet50":
        return torchvision.models.resnet50(weights=None).eval()
    size = {"img_size": 64} if "vit" in name or "swin" in name else {}
    return timm.create_model(name, pretrained=False, num_classes=5, **size).eval()


MODELS = [
    ("resnet18", "layer[2-4]", "layer*.*.conv2", 8),
    ("resnet50", "layer[2-4].*", "layer*.*.conv2", 16),
    ("torchvision resnet50", "layer2.*", "layer[34].*.conv2", 9),
    ("mobilenetv2_100", "blocks.*.*", "blocks.*.*.conv_pw", 17),
    ("convnext_atto", "stages.*", "stages.[12].blocks.*", 8),
    ("vit_tiny_patch16_224", "blocks.*", "blocks.*.attn", 12),
    ("swin_tiny_patch4_window7_224", "layers.*", "layers.*.blocks.*.mlp", 12),
    ("mixer_s32_224", "blocks.[0-2]", "blocks.*.mlp_channels", 8),
]


@pytest.mark.parametrize(("name", "after", "instead", "count"), MODELS)
def test_every_verb_fits_the_model_and_goes_away_again(name, after, instead, count):
    model = build(name)
    x = torch.rand(1, 3, 224, 224) if "mixer" in name else X
    keys = list(model.state_dict())
    wanted = model(x)
    graft = insert_(model, after, Mean, identity=True, example=x)
    assert torch.equal(model(x), wanted)
    assert set(keys) <= set(model.state_dict())
    other = replace_(model, instead, Mean, example=x)
    assert len(other.layers) == count
    assert model(x).shape == wanted.shape
    other.undo()
    graft.undo()
    assert torch.equal(model(x), wanted)
    assert list(model.state_dict()) == keys


def test_the_input_of_a_timm_model_is_known():
    graft = insert_(build("vit_tiny_patch16_224"), "blocks.0", Mean)
    assert graft.example == "1x3x64x64"
    assert graft.rows[0].size == (17,)
    assert graft.rows[0].after == "Block → Mean on tokens"
    assert insert_(build("resnet18"), "layer1", Mean).rows[0].size == (56, 56)


def test_a_place_that_mixes_layouts_is_refused():
    with pytest.raises(ShapeError, match=r"it takes channels first in 2-D and gives channels last in 1-D"):
        replace_(build("vit_tiny_patch16_224"), "patch_embed", Mean)


def test_a_masked_attention_is_refused():
    model = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False).eval()
    with pytest.raises(ShapeError, match="the model calls it with more than its input, mask"):
        replace_(model, "layers.0.blocks.1.attn", Mean)


def test_depthwise_convolutions_are_refused_by_the_verb_that_splits():
    with pytest.raises(ShapeError, match=r"of which 17 cannot take the layer: .*it is depthwise"):
        augment_(build("mobilenetv2_100"), nn.Conv2d, lambda site: Mean.from_site(site), ratio=0.1, example=X)


def test_a_module_that_runs_with_several_widths_is_refused():
    with pytest.raises(ShapeError, match="called 3 times and gives 64 or 256 channels"):
        insert_(build("torchvision resnet50"), "layer1.1.relu", Mean, example=X)


def test_a_detector_takes_layers_in_its_backbone_and_its_pyramid():
    model = torchvision.models.detection.fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=64, max_size=64
    ).eval()
    images = [X[0]]
    wanted = model(images)
    grafts = [
        insert_(model, "backbone.body.layer[34]", Mean, identity=True),
        insert_(model, "rpn.head.conv", lambda site: Gate(site.channels_out), identity=True, example=images),
    ]
    assert grafts[0].example == "list of 3x64x64"
    for before, now in zip(wanted, model(images), strict=True):
        assert all(torch.equal(before[key], now[key]) for key in before)
    with pytest.raises(ShapeError, match="it gives a OrderedDict, not one tensor"):
        insert_(model, "backbone.fpn", Mean)
    with pytest.raises(ShapeError, match="it would run the new layer as one of them"):
        insert_(model, "backbone.body", Mean)
    replace_(model, "backbone.body.layer4.*.conv2", Mean, example=images)
    model(images)


def test_local_attention_stands_for_the_spatial_convolutions():
    model = build("resnet18")
    graft = replace_(model, "layer[34].*.conv2", LocalAttention.like(kernel_size=3, heads=8), example=X)
    assert model(X).shape == (1, 5)
    for row in graft.rows:
        assert row.macs_after == graft.layers[row.site].macs(row.size)


def test_strided_local_attention_fits_a_strided_place():
    model = build("resnet18")
    graft = replace_(model, "layer2.0.conv1", LocalAttention.like(kernel_size=3, heads=4), example=X)
    assert graft.layers["layer2.0.conv1"].stride == 2
    model(X)


def test_explicit_attention_makes_a_tenth_of_the_channels():
    model = build("resnet18")
    old = {key: value.clone() for key, value in model.state_dict().items()}
    graft = augment_(
        model, "layer[2-4].*.conv2", ExplicitAttention.like(decay="gaussian", heads=2), ratio=0.1, example=X
    )
    assert [conv.attention.channels_out for conv in (block.conv2 for block in model.layer2)] == [16, 16]
    with pytest.warns(UserWarning, match="before a graft"):
        model.load_state_dict(old, strict=True)
    model(X)
    graft.undo()


def test_efficient_attention_starts_as_the_identity_and_compiles():
    model = build("resnet18")
    wanted = model(X)
    graft = insert_(model, "layer[1-3]", EfficientAttention.like(key_channels=16), identity=True, example=X)
    assert torch.equal(model(X), wanted)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(X), wanted)
    assert set(graft.layers) == {"layer1", "layer2", "layer3"}


def test_a_layer_for_maps_says_why_it_cannot_take_other_channels():
    with pytest.raises(ShapeError, match=r"'layer2.0.conv1' .it fails"):
        replace_(build("resnet18"), "layer2.0.conv1", EfficientAttention.like(), example=X)
