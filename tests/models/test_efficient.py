"""The networks of the efficient attention paper have its modules where a row says, and take its options."""

import pytest
import timm
import torch
from torch import nn

import foveal.models  # noqa: F401  registers them
from foveal.errors import OptionError
from foveal.layers import EfficientAttention, NonLocal
from foveal.models.catalog import CATALOG

ROWS = [name for name, row in CATALOG.items() if row.build.__module__ == "foveal.models.efficient"]
KINDS = (EfficientAttention, NonLocal)
RESNET50 = 25_557_032


def on_meta(name, **options):
    with torch.device("meta"):
        return timm.create_model(name, **options)


def count(model):
    return sum(p.numel() for p in model.parameters())


def attention_in(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, KINDS)}


def test_both_mechanisms_have_both_readings_of_every_place():
    places = [f"res{n}{reading}" for reading in ("", "_early") for n in (1, 2, 12)]
    assert set(ROWS) == {f"foveal_{kind}_resnet50_{place}" for kind in ("efficient", "nonlocal") for place in places}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_has_the_parameters_that_it_states(name):
    assert count(on_meta(name)) == CATALOG[name].parameters


@pytest.mark.parametrize(("place", "channels"), [("res1", [256]), ("res2", [512]), ("res12_early", [64, 256])])
def test_parameters_added_are_those_of_the_papers_module_and_of_the_codes_projection(place, channels):
    module = {64: 2 * (64 * 64 + 64) + 64 * 64 + 64, 256: 98_688, 512: 328_320}
    wanted = RESNET50 + sum(module[d] + d * d + d for d in channels)
    assert CATALOG[f"foveal_efficient_resnet50_{place}"].parameters == wanted
    # A norm of two parameters a channel ends the non-local block.
    assert CATALOG[f"foveal_nonlocal_resnet50_{place}"].parameters == wanted + 2 * sum(channels)


@pytest.mark.parametrize("name", ROWS)
def test_attention_follows_the_modules_of_a_row_and_no_other(name):
    found = attention_in(on_meta(name))
    assert [place.rpartition(".")[0] for place in found] == list(CATALOG[name].options["after"])
    kind = EfficientAttention if "efficient" in name else NonLocal
    assert all(type(layer) is kind for layer in found.values())


@pytest.mark.parametrize("name", ROWS)
def test_key_channels_and_normalization_reach_every_layer(name):
    for keys in (32, 128):
        for layer in attention_in(on_meta(name, key_channels=keys, normalization="scaling")).values():
            assert layer.query.out_features == layer.key.out_features == keys
            assert layer.value.out_features == layer.channels
            assert layer.normalization == "scaling"
            assert layer.residual
            assert layer.query.bias is not None
    for layer in attention_in(on_meta(name)).values():
        assert (layer.normalization, layer.query.out_features) == ("softmax", 64)
        assert not getattr(layer, "pool", False)


@pytest.mark.parametrize(("name", "place"), [("res1_early", "act1"), ("res1", "layer1"), ("res2", "layer2")])
def test_features_from_the_place_on_see_the_attention(name, place):
    options = {"features_only": True, "in_chans": 1}
    model = timm.create_model(f"foveal_efficient_resnet50_{name}", **options).eval()
    plain = timm.create_model("foveal_resnet50", **options).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "attention" not in k})
    x = torch.randn(1, 1, 65, 48)
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(model(x), plain(x), strict=True)]
    assert same.index(False) == ["act1", "layer1", "layer2"].index(place)
    assert not any(same[same.index(False) :])
    assert [m.shape[1] for m in model(x)] == model.feature_info.channels()


@pytest.mark.parametrize("normalization", ["softmax", "scaling"])
@pytest.mark.parametrize("name", ["foveal_efficient_resnet50_res12_early", "foveal_nonlocal_resnet50_res12"])
def test_every_parameter_learns(name, normalization):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, normalization=normalization)
    for module in model.modules():
        # Norms that start at zero hide the gradients of what they multiply.
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.ones_(module.weight)
    model(torch.randn(2, 3, 65, 48)).square().sum().backward()
    still = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A softmax over keys does not see what all keys have in common.
    assert all(key.endswith("attention.key.bias") for key in still)
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_nonlocal_row_starts_as_the_plain_network():
    torch.manual_seed(0)
    model = timm.create_model("foveal_nonlocal_resnet50_res12", num_classes=3).eval()
    plain = timm.create_model("foveal_resnet50", num_classes=3).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "attention" not in k})
    x = torch.randn(1, 3, 48, 65)
    torch.testing.assert_close(model(x), plain(x))


def test_an_unknown_normalization_is_refused_in_a_sentence():
    with pytest.raises(OptionError, match="normalization must be one of"):
        on_meta(ROWS[0], normalization="l1")
