"""Augmented networks: the counts of the papers' tables, the places, the sizes of the tables, the ablations."""

from functools import cache

import pytest
import timm
import torch

import foveal.models  # noqa: F401  registers them
from foveal.errors import OptionError
from foveal.layers import AugmentedConv
from foveal.layers.augmented import AugmentedAttention
from foveal.models.catalog import CATALOG
from foveal.models.wide_resnet import WideBlock, WideResNet

AA = "foveal_augmented"
PRINTED = {
    f"{AA}_resnet34": "20.7", f"{AA}_resnet50": "25.8", f"{AA}_resnet101": "45.4", f"{AA}_resnet152": "61.6",
    f"{AA}_resnet50_ratio25": "24.3", f"{AA}_resnet50_ratio50": "22.3", f"{AA}_resnet50_ratio75": "20.7",
    f"{AA}_resnet50_ratio100": "19.4", f"{AA}_resnet50_cifar": "23.9", f"{AA}_mobilenetv2_100": "3.55",
    f"{AA}_wrn28_10": "36.3", "foveal_wrn28_10": "36.5",
}  # fmt: skip


@cache
def on_meta(name, **options):
    """Models are only looked at, so each is built once."""
    with torch.device("meta"):
        return timm.create_model(name, **options)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def attended(model):
    """By the name of each augmented convolution, the channels that attention makes."""
    return {name: part.attention for name, part in model.named_modules() if isinstance(part, AugmentedConv)}


def lengths(model, name):
    return [(table.shape[1] + 1) // 2 for table in model.get_submodule(name).attention.relative]


def test_every_network_has_a_printed_count():
    assert {name for name in CATALOG if name.startswith(AA)} < set(PRINTED)


@pytest.mark.parametrize("name", PRINTED)
def test_counts_are_those_that_the_papers_print(name):
    count, printed = parameters(on_meta(name)), PRINTED[name]
    assert count == CATALOG[name].parameters
    assert f"{count / 1e6:.{len(printed.partition('.')[2])}f}" == printed


@pytest.mark.parametrize(
    ("name", "conv", "sites", "values", "keys"),
    [
        (f"{AA}_resnet34", "conv1", 4 + 6 + 3, {32, 64, 128}, {160}),
        (f"{AA}_resnet50", "conv2", 4 + 6 + 3, {16, 24, 48}, {160}),
        (f"{AA}_resnet50_ratio25", "conv2", 4 + 6 + 3, {32, 64, 128}, {160}),
        (f"{AA}_resnet50_ratio50", "conv2", 4 + 6 + 3, {64, 128, 256}, {160, 256}),
        (f"{AA}_resnet50_ratio75", "conv2", 4 + 6 + 3, {96, 192, 384}, {160, 192, 384}),
        (f"{AA}_resnet50_cifar", "conv2", 3 + 4 + 6 + 3, {8, 16, 24, 56}, {160}),
        (f"{AA}_mobilenetv2_100", "conv_pw", 12, {8, 20, 28}, {20, 28}),
        (f"{AA}_wrn28_10", "conv1", 12, {16, 32, 64}, {160}),
    ],
)
def test_attention_stands_beside_the_papers_convolutions_with_their_channels(name, conv, sites, values, keys):
    found = attended(on_meta(name))
    assert len(found) == sites
    assert {site.rpartition(".")[2] for site in found} == {conv}
    assert {layer.channels_out for layer in found.values()} == values
    assert {layer.query.out_features for layer in found.values()} == keys
    assert {layer.heads for layer in found.values()} == {4 if "mobile" in name else 8}


def test_on_imagenet_the_first_stage_stays_and_on_cifar_it_does_not():
    assert next(iter(attended(on_meta(f"{AA}_resnet50")))) == "layer2.0.conv2"
    assert next(iter(attended(on_meta(f"{AA}_resnet50_cifar")))) == "layer1.0.conv2"


def test_at_ratio_one_no_filter_is_left():
    model = on_meta(f"{AA}_resnet50_ratio100")
    assert isinstance(model.get_submodule("layer2.0.conv2"), AugmentedAttention)
    assert not attended(model)
    kinds = {
        type(model.get_submodule(f"layer{s}.{b}.conv2")) for s, many in ((2, 4), (3, 6), (4, 3)) for b in range(many)
    }
    assert kinds == {AugmentedAttention}


def test_tables_are_made_for_the_size_of_the_image():
    model, large = on_meta(f"{AA}_resnet50"), on_meta(f"{AA}_resnet50", img_size=(448, 200))
    assert [lengths(model, f"layer{stage}.1.conv2") for stage in (2, 3, 4)] == [[28, 28], [14, 14], [7, 7]]
    assert [lengths(large, f"layer{stage}.1.conv2") for stage in (2, 3, 4)] == [[56, 25], [28, 13], [14, 7]]
    assert lengths(on_meta(f"{AA}_resnet50_cifar"), "layer4.1.conv2") == [4, 4]
    assert lengths(on_meta(f"{AA}_wrn28_10"), "layer3.1.conv1") == [8, 8]
    assert lengths(on_meta(f"{AA}_mobilenetv2_100"), "blocks.1.1.conv_pw") == [56, 56]


def test_tables_of_strided_convolutions_have_the_outputs_size_unless_asked():
    model = on_meta(f"{AA}_resnet34")
    assert lengths(model, "layer2.0.conv1") == lengths(model, "layer2.1.conv1") == [28, 28]
    assert lengths(on_meta(f"{AA}_resnet34", tables="input"), "layer2.0.conv1") == [56, 56]


@pytest.mark.parametrize("name", [f"{AA}_resnet34", f"{AA}_mobilenetv2_100", f"{AA}_wrn28_10"])
def test_without_positions_only_the_tables_are_gone(name):
    model, bare = on_meta(name), on_meta(name, positions="none")
    tables = {key for key in model.state_dict() if ".relative." in key}
    assert tables
    assert set(model.state_dict()) - tables == set(bare.state_dict())


def test_unknown_options_are_refused_in_a_sentence():
    with pytest.raises(OptionError, match=r"^augmented: positions must be relative or none, got 'sine'\."):
        on_meta(f"{AA}_resnet50", positions="sine")
    with pytest.raises(OptionError, match=r"^augmented: tables must be input or output, got 'both'\."):
        on_meta(f"{AA}_resnet50", tables="both")
    with pytest.raises(OptionError, match=r"^augmented: img_size must be a side or \(rows, columns\), got \(1, 2, 3\)"):
        on_meta(f"{AA}_resnet50", img_size=(1, 2, 3))
    with pytest.raises(OptionError, match=r"^augmented: key_ratio must be above 0, got -1\. Pass 0\.2, say\."):
        on_meta(f"{AA}_resnet50", key_ratio=-1)


@pytest.mark.parametrize(
    ("name", "space"),
    [(f"{AA}_resnet34", (65, 48)), (f"{AA}_resnet50_ratio100", (65, 48)), (f"{AA}_mobilenetv2_100", (65, 48)),
     (f"{AA}_wrn28_10", (19, 16)), (f"{AA}_resnet50_cifar", (19, 16))],
)  # fmt: skip
def test_every_parameter_learns_from_images_of_odd_size(name, space):
    own = {"zero_init_last": False} if "resnet" in name else {}
    model = timm.create_model(name, num_classes=5, in_chans=2, **own)
    model(torch.randn(2, 2, *space)).square().mean().backward()
    dead = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not dead


def test_wrn_28_10_has_its_known_count_and_sizes():
    model = on_meta("foveal_wrn28_10", features_only=True)
    assert parameters(on_meta("foveal_wrn28_10")) == 36_536_884
    maps = model(torch.empty(1, 3, 32, 32, device="meta"))
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 32, 32), (160, 32, 32), (320, 16, 16), (640, 8, 8)]
    assert model.feature_info.reduction() == [1, 1, 2, 4]


@pytest.mark.parametrize(("depth", "near"), [(27, 22), (3, 10), (29, 28), (30, 28)])
def test_a_depth_that_no_wide_network_has_is_refused(depth, near):
    told = rf"^WideResNet: depth must be 10, 16, 22, 28 or 6 more, got {depth}\. Use {near}, say\."
    with pytest.raises(OptionError, match=told):
        WideResNet(depth)
    with pytest.raises(OptionError, match="width"):
        WideResNet(28, 0)


def test_a_wide_block_without_a_branch_is_the_identity():
    block, x = WideBlock(4, 4, 1), torch.randn(2, 4, 5, 3)
    torch.nn.init.zeros_(block.conv2.weight)
    assert torch.equal(block(x), x)


def test_a_wide_network_computed_again_in_the_backward_has_the_same_gradients():
    model, x = WideResNet(depth=10, width=1, num_classes=3), torch.randn(2, 3, 9, 8)
    gradients = []
    for again in (False, True):
        model.set_grad_checkpointing(again)
        model.zero_grad()
        model(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
