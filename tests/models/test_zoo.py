"""What every network of the catalog promises: one suite over all rows, on small images of odd and unequal sides."""

import math
import re

import pytest
import timm
import torch
from torch.testing import assert_close

from foveal.layers.base import AttentionLayer
from foveal.models.catalog import CATALOG
from models.zoo import LARGE, built, image_size, images, on_meta

ATTENTIONS = "local|efficient|nonlocal|explicit|augmented|se|eca|cbam"
BACKBONES = r"resnet\d+(_cifar)?|mobilenetv2_100|wrn28_10|eamlp_\d+"


@pytest.fixture(scope="module", params=CATALOG)
def name(request):
    """Of a row. Tests of one row follow each other, so that its network is built once a process."""
    return request.param


@pytest.fixture(scope="module")
def model(name):
    return built(name)


@pytest.fixture(scope="module")
def outline(name):
    """The network as its row makes it, without numbers."""
    return on_meta(name)


def test_it_gives_every_parameter_a_finite_gradient(name, model):
    out = model.train()(images(name))
    assert out.shape == (2, 5)
    model.zero_grad()
    out.square().sum().backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    model.zero_grad()


def test_it_takes_images_of_other_sizes(name, model):
    rows, columns = image_size(name)
    with torch.no_grad():
        for size in ((columns, rows), (rows + 8, columns - 7)):
            out = model.eval()(images(name, 1, size))
            assert out.shape == (1, 5)
            assert out.isfinite().all()


def test_in_bfloat16_it_gives_nearly_the_same(name, model):
    x = images(name)
    with torch.no_grad():
        full = model.eval()(x)
        with torch.autocast("cpu", torch.bfloat16):
            low = model(x).float()
    assert low.isfinite().all()
    # A layer rounds its input, its weights and its result by up to 2^-9 of their size, independently of the others.
    layers = sum(p.dim() > 1 for p in model.parameters())
    rounding = math.sqrt(3 * layers) * 2**-9
    assert (low - full).square().mean().sqrt() <= 2 * rounding * full.square().mean().sqrt()


def test_its_state_dict_is_all_that_it_has_learned(name, model):
    # Memory without content instead of weights: what the state dict leaves out would show.
    other = on_meta(name, num_classes=5).to_empty(device="cpu")
    for value in (*other.parameters(), *other.buffers()):
        value.data.fill_(math.nan if value.is_floating_point() else -1)
    other.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        assert_close(other.eval()(images(name)), model.eval()(images(name)), rtol=0, atol=0)


def test_it_has_the_parameters_of_its_row(name, outline):
    assert sum(p.numel() for p in outline.parameters()) == CATALOG[name].parameters


def test_its_head_and_its_channels_are_options(name):
    model, x = on_meta(name, num_classes=0, in_chans=4), torch.empty(2, 4, *LARGE, device="meta")
    assert model(x).shape == (2, model.num_features)
    with torch.device("meta"):
        model.reset_classifier(7)
    assert model(x).shape == (2, 7)
    assert model.get_classifier().out_features == model.num_classes == 7


def test_its_features_are_what_they_are_announced_to_be(name):
    model = on_meta(name, features_only=True)
    maps = model(torch.empty(2, 3, 64, 96, device="meta"))
    channels, reductions = model.feature_info.channels(), model.feature_info.reduction()
    assert [m.shape[1] for m in maps] == channels
    assert [tuple(m.shape[2:]) for m in maps] == [(64 // r, 96 // r) for r in reductions]


def test_it_is_named_by_the_rule(name):
    assert re.fullmatch(rf"foveal_(({ATTENTIONS})_)?({BACKBONES})(_[a-z0-9]+)*", name)


def test_it_has_attention_where_its_name_says_so_and_nowhere_else(name, outline):
    said = re.match(rf"foveal_({ATTENTIONS}|eamlp)_", name)
    kinds = [m for m in outline.modules() if isinstance(m, AttentionLayer) or re.match("SE|Eca|Cbam", type(m).__name__)]
    assert bool(kinds) == bool(said)


def test_timm_knows_its_images_and_its_layers(name, outline):
    shown, row, modules = timm.get_pretrained_cfg(name), CATALOG[name], dict(outline.named_modules())
    assert shown.input_size == (3, *row.size)
    assert shown.num_classes == row.classes
    assert shown.classifier in modules
    assert shown.first_conv is None or isinstance(modules[shown.first_conv], torch.nn.Conv2d)


def test_timm_lists_all_of_them():
    assert set(CATALOG) <= set(timm.list_models("foveal*"))
