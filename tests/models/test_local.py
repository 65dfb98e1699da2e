"""The networks of stand-alone self-attention have the paper's sizes, and attention exactly where a row says."""

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

import foveal.models  # noqa: F401  registers them
from foveal.errors import OptionError, ShapeError
from foveal.layers import LocalAttention, LocalAttentionStem
from foveal.models.catalog import CATALOG
from foveal.models.local import local_resnet
from foveal.models.sinusoids import AddSinusoids, sinusoids

ROWS = [name for name, row in CATALOG.items() if row.build.__module__ == "foveal.models.local"]
ATTENDING = [name for name in ROWS if name.startswith("foveal_local_")]
STEMS = [name for name in ROWS if name.endswith("_stem")]

# Millions of parameters as the paper prints them; where it cuts instead of rounding, as they round.
PRINTED = {
    "foveal_resnet26": 13.7, "foveal_resnet38": 19.6, "foveal_resnet50": 25.6,
    "foveal_local_resnet26": 10.3, "foveal_local_resnet38": 14.2, "foveal_local_resnet50": 18.0,
    "foveal_local_resnet26_attention_stem": 10.3, "foveal_local_resnet38_attention_stem": 14.2,
    "foveal_local_resnet50_attention_stem": 18.0, "foveal_local_resnet50_qr_only": 16.8,
    "foveal_local_resnet50_groups234": 18.1, "foveal_local_resnet50_groups34": 18.5,
    "foveal_local_resnet50_groups4": 20.8, "foveal_local_resnet50_groups1": 25.5,
    "foveal_local_resnet50_groups12": 25.1, "foveal_local_resnet50_groups123": 22.7,
    "foveal_local_resnet50_literal": 14.7,
}  # fmt: skip


def made(name, **options):
    torch.manual_seed(0)
    return timm.create_model(name, **options)


def small(**options):
    """One block a group: what a choice does is seen in it as well as in fifty layers."""
    torch.manual_seed(0)
    return local_resnet((1, 1, 1, 1), num_classes=7, **options)


def on_meta(name, **options):
    with torch.device("meta"):
        return timm.create_model(name, **options)


def count(model):
    return sum(p.numel() for p in model.parameters())


def layers_of(model, kind=LocalAttention):
    return {name: module for name, module in model.named_modules() if isinstance(module, kind)}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_has_the_parameters_that_it_states(name):
    total = count(on_meta(name))
    assert total == CATALOG[name].parameters
    if name in PRINTED:
        assert round(total / 1e6, 1) == PRINTED[name]


@pytest.mark.parametrize(("depth", "millions"), [(26, 10.330), (38, 14.171), (50, 18.012)])
def test_without_tables_dense_projections_give_the_published_counts(depth, millions):
    bare = count(on_meta(f"foveal_local_resnet{depth}", positions="none"))
    assert round(bare / 1e6, 3) == millions


def test_the_projections_of_the_text_do_not_give_the_published_counts():
    bare = count(on_meta("foveal_local_resnet50_literal", positions="none"))
    assert round(bare / 1e6, 2) == 14.71


@pytest.mark.parametrize("name", ATTENDING)
def test_attention_stands_in_the_groups_of_a_row_and_nowhere_else(name):
    model, options = on_meta(name), CATALOG[name].options
    groups = options.get("groups", (1, 2, 3, 4))
    blocks = {f"layer{g}.{b}.conv2": g for g, blocks in enumerate(options["layers"], 1) for b in range(blocks)}
    for place, group in blocks.items():
        module = model.get_submodule(place)
        attends = any(isinstance(part, LocalAttention) for part in module.modules())
        assert attends == (group in groups)
        assert attends != isinstance(module, nn.Conv2d)
    assert len(layers_of(model)) == sum(group in groups for group in blocks.values())
    assert all(place.split(".conv2")[0] + ".conv2" in blocks for place in layers_of(model))


@pytest.mark.parametrize("name", ATTENDING)
def test_every_attention_of_a_row_is_built_as_the_row_says(name):
    options = CATALOG[name].options
    for layer in layers_of(on_meta(name)).values():
        assert layer.heads == 8
        assert layer.kernel_size == options.get("kernel_size", 7)
        assert bool(len(layer.relative)) == (options.get("positions", "relative") == "relative")
        assert (layer.key is None) == (not options.get("content", True))
        assert layer.groups == (8 if options.get("grouped") else 1)


@pytest.mark.parametrize("stem", [None, "mixture"])
def test_maps_have_the_sizes_of_the_convolutional_network(stem):
    model = small(stem=stem).eval()
    sizes = [
        tuple(m.shape[2:]) for m in model.forward_intermediates(torch.randn(1, 3, 65, 48), intermediates_only=True)
    ]
    wanted = [(33, 24), (17, 12), (9, 6), (5, 3), (3, 2)]
    assert sizes == (wanted if stem is None else [(17, 12), *wanted[1:]])


@pytest.mark.parametrize("stem", [None, "mixture", "plain", "conv"])
def test_features_state_the_reductions_that_they_have(stem):
    layers = {"layers": (1, 1, 1, 1), "stem": stem}
    model = made("foveal_local_resnet50", features_only=True, **layers).eval()
    maps = model(torch.randn(2, 3, 64, 96))
    assert [(64 // m.shape[2], 96 // m.shape[3]) for m in maps] == [(r, r) for r in model.feature_info.reduction()]
    assert [m.shape[1] for m in maps] == model.feature_info.channels() == [64, 256, 512, 1024, 2048]


@pytest.mark.parametrize(
    "options",
    [
        {}, {"content": False}, {"grouped": True}, {"positions": "none"}, {"positions": "absolute"}, {"groups": (2, 4)},
        {"stem": "mixture"}, {"stem": "plain"}, {"stem": "conv"},
    ],
    ids=str,
)  # fmt: skip
def test_every_parameter_of_every_choice_learns(options):
    model = small(in_chans=4, **options)
    for module in model.modules():
        # timm starts the last norm of a block at zero, which hides the gradients of what it multiplies.
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    model(torch.randn(3, 4, 65, 48)).square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_logits_of_positions_alone_ignore_what_the_keys_hold():
    torch.manual_seed(0)
    layer = small(content=False).layer1[0].conv2
    x = torch.randn(1, 64, 9, 9)
    other = x.clone()
    other[..., 2:5, 2:5] = torch.randn(1, 64, 3, 3)
    other[..., 4, 4] = x[..., 4, 4]
    assert_close(layer.attention_map(other, at=(4, 4)), layer.attention_map(x, at=(4, 4)))
    with_keys = small().layer1[0].conv2
    assert not torch.allclose(with_keys.attention_map(other, at=(4, 4)), with_keys.attention_map(x, at=(4, 4)))


def test_logits_of_positions_alone_are_those_of_keys_of_zero():
    bare, full = small(content=False).layer2[0].conv2, small().layer2[0].conv2
    full.load_state_dict(bare.state_dict(), strict=False)
    nn.init.zeros_(full.key.weight)
    x = torch.randn(2, full.channels, 7, 5)
    assert_close(bare(x), full(x))


def test_grouped_projections_are_dense_ones_with_blocks_on_the_diagonal():
    grouped, dense = small(grouped=True).layer2[0].conv2, small().layer2[0].conv2
    dense.relative.load_state_dict(grouped.relative.state_dict())
    for part in ("query", "key", "value"):
        heads = getattr(grouped, part).weight.unflatten(0, (8, -1)).unbind()
        getattr(dense, part).weight.data = torch.block_diag(*heads)
    x = torch.randn(2, dense.channels, 7, 5)
    assert_close(grouped(x), dense(x))
    assert_close(grouped(x.to(memory_format=torch.channels_last)), dense(x))


def test_without_positions_the_order_inside_a_window_does_not_matter():
    x = torch.randn(1, 64, 3, 3)
    turned = x.rot90(1, (2, 3))
    for positions, same in (("none", True), ("relative", False), ("absolute", False)):
        attention = small(positions=positions).layer1[0].conv2
        centres = [attention(m)[..., 1, 1] for m in (x, turned)]
        assert torch.allclose(*centres, atol=1e-6) == same


def test_sinusoids_tell_every_position_apart_and_follow_the_formula():
    added = AddSinusoids()(torch.zeros(1, 6, 11, 13))[0]
    flat = added.flatten(1).T
    assert torch.cdist(flat, flat).fill_diagonal_(9).min() > 1e-3
    assert_close(added[0, :, 5], torch.arange(11.0).sin())
    assert_close(added[2, :, 5], torch.arange(11.0).cos())
    assert_close(added[4, 7], (torch.arange(13.0) / 100).sin())
    assert sinusoids(5, 0, torch.device("cpu")).shape == (0, 5)
    assert AddSinusoids()(torch.zeros(1, 5, 2, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("values", ["plain", "conv", "mixture"])
def test_only_mixed_values_depend_on_the_place_in_a_block(values):
    torch.manual_seed(0)
    stem = LocalAttentionStem(values=values)
    x = torch.ones(1, 3, 12, 12)
    inner = stem.values(x)[..., 4:8, 4:8].flatten(3)
    assert torch.allclose(inner, inner[..., :1].expand_as(inner), atol=1e-6) == (values != "mixture")


def test_values_of_a_convolution_reach_into_the_next_block():
    torch.manual_seed(0)
    x = torch.randn(1, 3, 8, 8)
    other = x.clone()
    other[..., 4:] += 1
    for values, reaches in (("plain", False), ("mixture", False), ("conv", True)):
        stem = LocalAttentionStem(values=values)
        left = [stem.values(m)[..., :4] for m in (x, other)]
        assert torch.equal(*left) != reaches
    assert stem.value.kernel_size == (4, 4)


def test_weights_of_places_are_asked_of_mixed_values_alone():
    told = r"^LocalAttentionStem: place_weights\(\) are those of mixed values, .* Build it with values='mixture'.$"
    with pytest.raises(OptionError, match=told):
        LocalAttentionStem(values="plain").place_weights()
    with pytest.raises(OptionError, match="values must be one of"):
        LocalAttentionStem(values="mixed")


def test_a_smaller_output_stride_dilates_attention_as_it_dilates_convolutions():
    model = small(output_stride=16).eval()
    assert [layer.dilation for layer in layers_of(model).values()] == [1, 1, 1, 1]
    deeper = local_resnet((1, 1, 1, 2), output_stride=16)
    assert [layer.dilation for layer in layers_of(deeper).values()] == [1, 1, 1, 1, 2]
    assert model.forward_features(torch.randn(1, 3, 64, 64)).shape == (1, 2048, 4, 4)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"groups": (0, 1)}, OptionError, r"local_resnet: groups must name some of the groups 1 to 4, got \(0, 1\)"),
        ({"groups": ()}, OptionError, r"local_resnet: groups must name some of the groups 1 to 4, got \(\)"),
        ({"positions": "sine"}, OptionError, "local_resnet: positions must be one of"),
        ({"kernel_size": 4}, OptionError, "kernel_size must be odd, got 4"),
        ({"content": False, "positions": "none"}, OptionError, "content=False takes its logits from the relative"),
        ({"heads": 7}, (OptionError, ShapeError), "heads must divide channels_out=64, got heads=7"),
    ],
    ids=str,
)
def test_a_choice_that_cannot_be_is_refused_in_a_sentence(options, error, told):
    with pytest.raises(error, match=told):
        small(**options)


def test_a_network_of_attention_alone_has_no_convolution_that_looks_around():
    convolutions = layers_of(on_meta("foveal_local_resnet50_attention_stem"), nn.Conv2d)
    assert convolutions
    assert all(conv.kernel_size == (1, 1) for conv in convolutions.values())


@pytest.mark.parametrize("name", STEMS)
def test_a_stem_of_attention_offers_no_first_convolution_to_adapt(name):
    model = on_meta(name, in_chans=5)
    assert model.default_cfg["first_conv"] is None
    assert isinstance(model.conv1, LocalAttentionStem)
    assert model.conv1.channels == 5
