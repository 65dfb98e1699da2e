"""Networks with explicit attention: the counts of the paper's tables, the places, the ablations."""

from functools import cache

import pytest
import timm
import torch

import foveal.models  # noqa: F401  registers them
from foveal.errors import OptionError
from foveal.layers import AugmentedConv
from foveal.layers.augmented import AugmentedAttention
from foveal.layers.explicit import ExplicitAttention
from foveal.models.catalog import CATALOG
from foveal.models.explicit import Halves

SMALL = "foveal_explicit_resnet50_cifar"
DECAYS = ("uniform", "linear", "cosine", "euclidean", "manhattan")
# Millions as the paper prints them; what follows its text instead, as that text would have been printed.
PRINTED = {
    "foveal_explicit_resnet34": "17.3", "foveal_explicit_resnet50": "24.5", "foveal_explicit_resnet101": "42.7",
    "foveal_explicit_resnet152": "57.6", "foveal_explicit_resnet34_literal": "20.1",
    "foveal_explicit_resnet50_literal": "24.6", "foveal_explicit_resnet101_literal": "42.8",
    "foveal_explicit_resnet152_literal": "57.7", "foveal_resnet50_cifar": "23.7", SMALL: "22.7",
    **{f"{SMALL}_{decay}": "22.7" for decay in DECAYS}, f"{SMALL}_per_head_radius": "22.7",
    f"{SMALL}_no_offset": "22.7", f"{SMALL}_literal": "22.8", "foveal_mobilenetv2_100": "3.50",
    "foveal_explicit_mobilenetv2_100": "3.51", "foveal_explicit_mobilenetv2_100_literal": "3.52",
}  # fmt: skip
ROWS = [name for name in CATALOG if name.startswith("foveal_explicit")]


@cache
def on_meta(name, **options):
    """Models are only looked at, so each is built once."""
    with torch.device("meta"):
        return timm.create_model(name, **options)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def attended(model):
    """By the name of each augmented convolution: its channels, and those that attention makes."""
    both = {name: part for name, part in model.named_modules() if isinstance(part, AugmentedConv)}
    return {name: (part.channels_out, part.channels_out - part.conv.out_channels) for name, part in both.items()}


def layers(model):
    return [part for part in model.modules() if isinstance(part, ExplicitAttention)]


def test_every_network_has_a_printed_count():
    assert set(ROWS) - set(PRINTED) == {f"{SMALL}_with_content"}


@pytest.mark.parametrize("name", PRINTED)
def test_counts_are_those_that_the_paper_prints(name):
    count, printed = parameters(on_meta(name)), PRINTED[name]
    assert count == CATALOG[name].parameters
    assert f"{count / 1e6:.{len(printed.partition('.')[2])}f}" == printed


@pytest.mark.parametrize(
    ("name", "blocks", "shares"),
    [
        ("foveal_explicit_resnet50", (4, 6, 3), {128: 16, 256: 24, 512: 56}),
        ("foveal_explicit_resnet50_literal", (4, 6, 3), {128: 16, 256: 24, 512: 48}),
        (SMALL, (3, 4, 6, 3), {64: 8, 128: 16, 256: 24, 512: 56}),
        (f"{SMALL}_literal", (3, 4, 6, 3), {64: 8, 128: 16, 256: 24, 512: 48}),
    ],
)
def test_bottlenecks_have_attention_beside_every_3x3_convolution_of_their_stages(name, blocks, shares):
    found = attended(on_meta(name))
    first = 5 - len(blocks)
    assert list(found) == [f"layer{first + s}.{b}.conv2" for s, many in enumerate(blocks) for b in range(many)]
    assert {channels: share for channels, share in found.values()} == shares


@pytest.mark.parametrize(("end", "shares"), [("", {32, 64, 128}), ("_literal", {16, 24, 48})])
def test_plain_blocks_have_attention_beside_both_convolutions(end, shares):
    found = attended(on_meta(f"foveal_explicit_resnet34{end}"))
    assert len(found) == 2 * (4 + 6 + 3)
    assert {name.rpartition(".")[2] for name in found} == {"conv1", "conv2"}
    assert not any(name.startswith("layer1") for name in found)
    assert {share for _, share in found.values()} == shares


@pytest.mark.parametrize(("end", "last"), [("", {}), ("_literal", {960: 48})])
def test_the_widening_convolutions_of_mobilenetv2_have_attention(end, last):
    model = on_meta(f"foveal_explicit_mobilenetv2_100{end}")
    found = attended(model)
    assert len(found) == (15 if last else 12)
    assert all(name.endswith("conv_pw") for name in found)
    assert dict(found.values()) == {144: 8, 192: 8, 384: 20, 576: 28, **last}
    assert {layer.heads for layer in layers(model)} == {4}


def test_strided_convolutions_get_strided_attention():
    model = on_meta("foveal_explicit_resnet50")
    assert model.get_submodule("layer2.0.conv2").attention.stride == 2
    assert model.get_submodule("layer2.1.conv2").attention.stride == 1


@pytest.mark.parametrize("decay", DECAYS)
def test_a_decay_is_that_of_its_row_and_an_option_of_every_other(decay):
    rows = on_meta(f"{SMALL}_{decay}"), on_meta("foveal_explicit_mobilenetv2_100", decay=decay)
    for model in rows:
        assert {layer.decay for layer in layers(model)} == {decay}
        assert all((layer.radius is None) == (decay in ("uniform", "linear", "cosine")) for layer in layers(model))


def test_the_ablations_change_what_they_say_and_nothing_else():
    main, heads = layers(on_meta(SMALL)), layers(on_meta(f"{SMALL}_per_head_radius"))
    bare = layers(on_meta(f"{SMALL}_no_offset"))
    assert all(layer.radius.shape == () and layer.offset == 1 and layer.decay == "gaussian" for layer in main)
    assert all(layer.radius.shape == (8,) and layer.offset == 1 and layer.decay == "gaussian" for layer in heads)
    assert all(layer.radius.shape == () and layer.offset == 0 and layer.decay == "gaussian" for layer in bare)


def test_with_content_half_of_the_channels_are_dot_products_without_positions():
    model = on_meta(f"{SMALL}_with_content")
    assert {share for _, share in attended(model).values()} == {8, 16, 24, 56}
    halves = [part for part in model.modules() if isinstance(part, Halves)]
    assert len(halves) == 16
    for part in halves:
        assert part.explicit.channels_out == part.content.channels_out
        assert isinstance(part.content, AugmentedAttention) and not part.content.relative


def test_halves_are_both_layers_on_one_map():
    both = Halves(ExplicitAttention(6, 4, heads=1), AugmentedAttention(6, 3, heads=1))
    x = torch.randn(2, 6, 5, 7)
    out = both(x)
    assert out.shape[1] == both.channels_out == 7
    assert torch.equal(out[:, :4], both.explicit(x)) and torch.equal(out[:, 4:], both.content(x))


@pytest.mark.parametrize(
    ("name", "space"),
    [("foveal_explicit_resnet34", (65, 48)), ("foveal_explicit_mobilenetv2_100", (65, 48)), (SMALL, (19, 16)),
     (f"{SMALL}_with_content", (19, 16)), (f"{SMALL}_per_head_radius", (19, 16))],
)  # fmt: skip
def test_every_parameter_learns_from_images_of_odd_size(name, space):
    own = {} if "mobile" in name else {"zero_init_last": False}
    model = timm.create_model(name, num_classes=5, in_chans=2, **own)
    model(torch.randn(2, 2, *space)).square().mean().backward()
    dead = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not dead
    assert all(layer.radius.grad.any() for layer in layers(model))


def test_weights_of_the_plain_network_load_and_their_first_filters_stay():
    plain, model = timm.create_model("resnet34"), timm.create_model("foveal_explicit_resnet34")
    with pytest.warns(UserWarning, match="this state dict is from before a graft: 78 keys keep their initial values"):
        told = model.load_state_dict(plain.state_dict(), strict=False)
    assert not told.unexpected_keys
    assert all(".attention." in key for key in told.missing_keys)
    kept = model.get_submodule("layer2.1.conv1").conv.weight
    assert torch.equal(kept, plain.get_submodule("layer2.1.conv1").weight[:96])


def test_the_cifar_network_keeps_32_pixels_until_its_second_stage():
    plain, model = on_meta("resnet50", num_classes=100), on_meta("foveal_resnet50_cifar", features_only=True)
    assert parameters(on_meta("foveal_resnet50_cifar")) == parameters(plain) == 23_712_932
    maps = model(torch.empty(1, 3, 32, 32, device="meta"))
    assert [m.shape[-1] for m in maps] == [32, 32, 16, 8, 4]
    assert [32 // r for r in model.feature_info.reduction()] == [32, 32, 16, 8, 4]
    assert model.conv1.kernel_size == (7, 7)


def test_an_unknown_decay_or_depth_is_refused_in_a_sentence():
    with pytest.raises(OptionError, match=r"decay must be one of uniform, linear, .* got 'gauss'"):
        on_meta("foveal_explicit_resnet50", decay="gauss")
    with pytest.raises(OptionError, match=r"^resnet: depth must be one of 26, 34, 38, 50, 101, 152, got 51\."):
        on_meta("foveal_explicit_resnet50", depth=51)
