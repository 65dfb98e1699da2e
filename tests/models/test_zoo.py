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

by_row = pytest.mark.parametrize("name", CATALOG)


@pytest.fixture(scope="module", params=CATALOG)
def network(request):
    """A row's name and its network; tests of one row follow each other, so each is built once a process."""
    return request.param, built(request.param)


def test_it_gives_every_parameter_a_finite_gradient(network):
    name, model = network
    out = model.train()(images(name))
    assert out.shape == (2, 5)
    model.zero_grad()
    out.square().sum().backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    model.zero_grad()


def test_it_takes_images_of_other_sizes(network):
    name, model = network
    rows, columns = image_size(name)
    with torch.no_grad():
        for size in ((columns, rows), (rows + 8, columns - 7), (rows, rows)):
            out = model.eval()(images(name, 1, size))
            assert out.shape == (1, 5)
            assert out.isfinite().all()


def test_in_bfloat16_it_gives_nearly_the_same(network):
    name, model = network
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


def test_its_state_dict_is_all_that_it_has_learned(network):
    name, model = network
    # Memory without content instead of weights: what the state dict leaves out would show.
    other = on_meta(name, num_classes=5).to_empty(device="cpu")
    for value in (*other.parameters(), *other.buffers()):
        value.data.fill_(math.nan if value.is_floating_point() else -1)
    other.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        assert_close(other.eval()(images(name)), model.eval()(images(name)), rtol=0, atol=0)


@by_row
def test_it_has_the_parameters_of_its_row(name):
    assert sum(p.numel() for p in on_meta(name).parameters()) == CATALOG[name].parameters


@by_row
def test_its_head_and_its_channels_are_options(name):
    x = torch.empty(2, 4, *LARGE, device="meta")
    model = on_meta(name, num_classes=7, in_chans=4)
    assert model(x).shape == (2, 7)
    assert model.get_classifier().out_features == model.num_classes == 7
    with torch.device("meta"):
        model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    with torch.device("meta"):
        model.reset_classifier(0)
    assert model(x).shape == (2, model.num_features)
    assert on_meta(name, num_classes=0, in_chans=4)(x).shape == (2, model.num_features)


@by_row
def test_its_features_are_what_they_are_announced_to_be(name):
    model = on_meta(name, features_only=True)
    maps = model(torch.empty(2, 3, 64, 96, device="meta"))
    channels, reductions = model.feature_info.channels(), model.feature_info.reduction()
    assert [m.shape[1] for m in maps] == channels
    assert [tuple(m.shape[2:]) for m in maps] == [(64 // r, 96 // r) for r in reductions]


@by_row
def test_it_is_named_by_the_rule(name):
    assert re.fullmatch(rf"foveal_(({ATTENTIONS})_)?({BACKBONES})(_[a-z0-9]+)*", name)


@by_row
def test_it_has_attention_where_its_name_says_so_and_nowhere_else(name):
    said = re.match(rf"foveal_({ATTENTIONS}|eamlp)_", name)
    kinds = {type(module).__name__ for module in on_meta(name).modules() if isinstance(module, AttentionLayer)}
    kinds |= {type(m).__name__ for m in on_meta(name).modules() if re.search("^(SE|Eca|Cbam)[A-Z]?", type(m).__name__)}
    assert bool(kinds) == bool(said)


def test_timm_lists_all_of_them():
    assert set(CATALOG) <= set(timm.list_models("foveal*"))


@by_row
def test_timm_knows_its_images_and_its_layers(name):
    shown = timm.get_pretrained_cfg(name)
    row = CATALOG[name]
    assert shown.input_size == (3, *row.size)
    assert shown.num_classes == row.classes
    modules = dict(on_meta(name).named_modules())
    assert shown.classifier in modules
    assert shown.first_conv is None or isinstance(modules[shown.first_conv], torch.nn.Conv2d)
