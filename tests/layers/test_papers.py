"""Layers against what the papers and the authors' code state: parameter counts, starts, layouts, options."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import foveal
from foveal import OptionError, ShapeError


def parameters(layer):
    return sum(p.numel() for p in layer.parameters())


def test_local_attention_has_three_dense_projections_and_split_tables():
    layer = foveal.LocalAttention(64, 64, kernel_size=7, heads=8)
    assert parameters(layer) == 3 * 64**2 + 7 * 64
    assert [tuple(t.shape) for t in layer.relative] == [(8, 7, 4), (8, 7, 4)]


@pytest.mark.parametrize(("mixtures", "count"), [(1, 720), (4, 1344), (8, 2176)])
def test_the_stem_has_few_parameters(mixtures, count):
    stem = foveal.LocalAttentionStem(3, 64, mixtures=mixtures)
    assert parameters(stem) - parameters(stem.norm) == count
    assert stem.eval()(torch.randn(1, 3, 32, 24)).shape == (1, 64, 8, 6)


@pytest.mark.parametrize(("channels", "count"), [(256, 98_688), (512, 328_320), (1024, 1_180_800)])
def test_efficient_attention_has_the_papers_parameters(channels, count):
    # The paper's count has the biases of query, key and value and no projection.
    layer = foveal.EfficientAttention(channels, key_channels=64, projection="auto")
    assert parameters(layer) == count


def test_the_eanet_unit_has_the_authors_parameters():
    assert parameters(foveal.ExternalAttention(512, slots=64)) == 591_360
    assert parameters(foveal.ExternalAttention(512, slots=64, memories="tied")) == 591_360 - 512 * 64


def test_independent_memories_stay_independent_on_any_device_and_type():
    layer = foveal.ExternalAttention(8, slots=4, memories="tied_start")
    assert torch.equal(layer.memory_key, layer.memory_value)
    assert layer.memory_key.data_ptr() != layer.memory_value.data_ptr()
    tied = foveal.ExternalAttention(8, slots=4, memories="tied").double()
    assert "memory_value" not in dict(tied.named_parameters())


def test_multi_head_external_attention_widens_four_times_into_heads_of_64():
    # EAMLP-14 has width 384 and 24 heads.
    layer = foveal.MultiHeadExternalAttention(384)
    assert layer.heads == 24
    assert layer.query.out_features == 1536
    assert parameters(layer) == 2 * 384 * 1536 + 1536 + 384 + 2 * (64 * 64 + 64)


def test_augmented_attention_has_at_least_twenty_key_channels_a_head():
    layer = foveal.AugmentedAttention(128, 16, heads=8, size=(28, 28))
    assert layer.query.out_features == 160
    assert [tuple(t.shape) for t in layer.relative] == [(1, 55, 20), (1, 55, 20)]
    assert foveal.AugmentedAttention(512, 128, heads=8).query.out_features == 256


def test_relative_tables_are_cropped_for_smaller_and_stretched_for_larger_maps():
    layer = foveal.AugmentedAttention(4, 2, key_channels=2, heads=1, size=(5,))
    whole = layer.relative[0]
    assert_close(layer.tables((5,))[0], whole)
    assert_close(layer.tables((3,))[0], whole[:, 2:7])
    assert_close(layer.tables((9,))[0][:, ::2], whole)
    with pytest.raises(ShapeError, match="made for maps of 1 space axes, got 2"):
        layer(torch.randn(1, 4, 5, 5))


def test_explicit_attention_has_one_radius_that_starts_at_three_quarters():
    layer = foveal.ExplicitAttention(64, 8)
    assert layer.radius.shape == ()
    assert layer.radius.item() == 0.75
    assert parameters(layer) == 64 * 8 + 8 * 8 + 1
    assert foveal.ExplicitAttention(64, 8, decay="cosine").radius is None
    assert foveal.ExplicitAttention(64, 8, per_head_radius=True).radius.shape == (8,)


def test_the_non_local_block_starts_as_the_identity():
    x = torch.randn(2, 8, 5, 6)
    assert torch.equal(foveal.NonLocal(8)(x), x)


@pytest.mark.parametrize(
    "layer",
    [
        foveal.LocalAttention(8, 16, kernel_size=3, stride=2),
        foveal.ExplicitAttention(8, 16, stride=2),
        foveal.AugmentedAttention(8, 16, stride=2),
    ],
    ids=lambda layer: type(layer).__name__,
)
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 2)])
def test_strided_layers_give_the_sizes_of_a_strided_convolution(layer, size):
    conv = nn.Conv2d(8, 16, 3, stride=2, padding=1)
    x = torch.randn(1, 8, *size)
    assert layer(x).shape == conv(x).shape


def test_strided_local_attention_averages_aligned_blocks_and_a_last_one_of_what_it_has():
    layer = foveal.LocalAttention(4, 4, kernel_size=3, heads=1, stride=2)
    x = torch.randn(1, 4, 3, 4)
    whole = layer.attend(x).flatten(1, 2)
    out = layer(x)
    assert_close(out[..., 0, 0], whole[..., :2, :2].mean((-1, -2)))
    assert_close(out[..., 1, 1], whole[..., 2:, 2:].mean((-1, -2)))


def test_projections_load_weights_of_1x1_convolutions():
    conv, layer = nn.Conv2d(8, 4, 1), foveal.EfficientAttention(8, key_channels=4)
    layer.query.load_state_dict(conv.state_dict())
    x = torch.randn(1, 8, 3, 3)
    assert_close(layer.query(x), conv(x))


def test_errors_say_what_to_do():
    with pytest.raises(OptionError, match="heads must divide channels_out=10, got heads=8. Use 10, say"):
        foveal.LocalAttention(4, 10, heads=8)
    with pytest.raises(OptionError, match="a head's depth, which is 1. Use heads=4 or fewer, or relative=False"):
        foveal.LocalAttention(8, 8, heads=8)
    with pytest.raises(OptionError, match="projection must be one of always, auto, got 'never'"):
        foveal.EfficientAttention(8, projection="never")
    with pytest.raises(OptionError, match="memories must be one of independent, tied_start, tied, got 'shared'"):
        foveal.ExternalAttention(8, memories="shared")
    with pytest.raises(OptionError, match="decay must be one of"):
        foveal.ExplicitAttention(8, heads=2, decay="gauss")
    with pytest.raises(ShapeError, match=r"LocalAttention: the map must be \(batch, 4, \*space\)"):
        foveal.LocalAttention(4, 8, heads=2)(torch.randn(2, 4))
