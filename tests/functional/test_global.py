"""Efficient, external and dot-product attention: limits, symmetries, memory, errors."""

import pytest
import torch
from torch.testing import assert_close

from foveal import (
    BackendError,
    OptionError,
    ShapeError,
    dot_product_attention,
    efficient_attention,
    external_attention,
)
from foveal.analysis import peak_memory
from foveal.functional import dot_product, efficient


def maps(space, batch=2, heads=2, depth=4, value_depth=3):
    shapes = [(batch, heads, d, *space) for d in (depth, depth, value_depth)]
    return [torch.randn(s, dtype=torch.float64) for s in shapes]


@pytest.mark.parametrize("space", [(1,), (9,), (4, 5), (2, 3, 2)], ids=str)
def test_scaling_efficient_attention_is_dot_product_attention_over_n(space):
    q, k, v = maps(space)
    mask = torch.rand(2, *space) > 0.3
    for m in (None, mask):
        got = efficient_attention(q, k, v, normalization="scaling", mask=m)
        assert_close(got, dot_product_attention(q, k, v, normalization="scaling", mask=m, backend="reference"))


def test_softmax_efficient_attention_of_one_key_channel_is_softmax_pooling():
    q, k, v = maps((6,), depth=1)
    pooled = (k.softmax(-1) * v).sum(-1, keepdim=True)
    assert_close(efficient_attention(q, k, v), pooled.expand(v.shape))


def test_queries_and_keys_may_live_on_different_maps():
    q, _, _ = maps((4, 5))
    _, k, v = maps((7,))
    for operation in (efficient_attention, dot_product_attention):
        out = operation(q, k, v)
        assert out.shape == (2, 2, 3, 4, 5)
        assert_close(out, operation(q, k, v, backend="reference"))


@pytest.mark.parametrize(
    "run",
    [
        efficient_attention,
        dot_product_attention,
        lambda q, k, v: external_attention(q, torch.eye(4).double(), torch.eye(4).double()),
    ],
    ids=["efficient", "dot_product", "external"],
)
def test_reordering_positions_reorders_the_result(run):
    maps_of = maps((12,))
    order = torch.randperm(12)
    assert_close(run(*(x[..., order] for x in maps_of)), run(*maps_of)[..., order])


@pytest.mark.parametrize("masked", [efficient_attention, dot_product_attention], ids=["efficient", "dot_product"])
def test_masking_keys_is_cropping_them(masked):
    q, k, v = maps((9,), batch=1)
    mask = torch.tensor([[1, 0, 1, 1, 0, 0, 1, 1, 0]], dtype=torch.bool)
    assert_close(masked(q, k, v, mask=mask), masked(q, k[..., mask[0]], v[..., mask[0]]))


def test_masking_external_attention_is_cropping_the_map():
    x, keys, values = maps((9,), batch=1)[0], torch.randn(5, 4).double(), torch.randn(5, 3).double()
    mask = torch.tensor([[1, 0, 1, 1, 0, 0, 1, 1, 0]], dtype=torch.bool)
    out = external_attention(x, keys, values, mask=mask)
    assert_close(out[..., mask[0]], external_attention(x[..., mask[0]], keys, values))
    assert not out[..., ~mask[0]].any()


def test_double_normalisation_gives_every_position_a_sum_of_one():
    x, keys = torch.randn(2, 1, 4, 8, 8).double(), torch.randn(5, 4).double()
    out = external_attention(x, keys, torch.ones(5, 1).double())
    assert_close(out, torch.ones_like(out), atol=1e-6, rtol=0)


def test_external_attention_in_float16_survives_many_positions():
    # Weights over 262,144 positions are far below float16's smallest number, and so is the epsilon of 1e-9.
    x = torch.randn(1, 1, 4, 512, 512).half()
    keys, values = torch.randn(8, 4).half(), torch.randn(8, 4).half()
    out = external_attention(x, keys, values)
    wide = external_attention(x.float(), keys.float(), values.float())
    assert_close(out.float(), wide, atol=4e-3, rtol=4e-3)


def test_the_cheaper_order_of_the_products_is_taken():
    many, few = torch.empty(1, 1, 8, 100, 100, device="meta"), torch.empty(1, 1, 64, 3, 3, device="meta")
    assert efficient.BACKENDS.cheapest(many, many, many) == "context"
    assert efficient.BACKENDS.cheapest(few, few, few) == "map"


def test_relative_logits_never_store_all_pairs():
    q, k, v = (torch.randn(1, 1, 16, 64, 64, requires_grad=True) for _ in range(3))
    tables = [torch.randn(1, 127, 16, requires_grad=True) for _ in range(2)]
    mask = torch.rand(1, 64, 64) > 0.5
    pairs = 64**4 * q.element_size()

    def train(**options):
        out = dot_product_attention(q, k, v, **options)
        return torch.autograd.grad(out.sum(), [q, k, v])

    for options in ({}, {"relative": tables}, {"relative": tables, "mask": mask}):
        assert peak_memory(lambda o=options: train(**o)) < pairs / 2
    assert peak_memory(lambda: train(backend="reference")) > pairs


def test_backends_explain_themselves():
    q, k, v = maps((4,))
    told = dot_product.BACKENDS.explain(q, k, v, normalization="softmax")
    assert told == {"sdpa": "224 operations a sample", "linear": "it computes normalization 'scaling' only"}
    with pytest.raises(BackendError, match="'linear' cannot run this call: it computes normalization 'scaling' only"):
        dot_product_attention(q, k, v, backend="linear")


def test_errors_say_what_to_do():
    q, k, v = maps((4, 5))
    with pytest.raises(OptionError, match="takes no scale, got 0.5. Leave it None, or multiply q"):
        dot_product_attention(q, k, v, normalization="scaling", scale=0.5)
    with pytest.raises(OptionError, match="normalization must be one of softmax, scaling, got 'l1'"):
        efficient_attention(q, k, v, normalization="l1")
    with pytest.raises(ShapeError, match="batch, heads and depth of q and k must be equal"):
        efficient_attention(q[:, :, :2], k, v)
    with pytest.raises(ShapeError, match=r"relative\[0\] must be \(heads or 1, offsets, depth\) = \(2 or 1, 7, …\)"):
        dot_product_attention(q, k, v, relative=[torch.ones(1, 5, 4).double()] * 2)
    with pytest.raises(ShapeError, match=r"with relative, the spaces of q and k must be equal"):
        dot_product_attention(q, k[..., :3], v[..., :3], relative=[torch.ones(1, 7, 4).double()] * 2)
    with pytest.raises(ShapeError, match=r"memory_key must be \(slots, 4\) or \(2, slots, 4\), got \(5, 3\)"):
        external_attention(q, torch.ones(5, 3).double(), torch.ones(5, 3).double())
    with pytest.raises(ShapeError, match=r"memory_value must be \(5, depth\) or \(2, 5, depth\), got \(4, 3\)"):
        external_attention(q, torch.ones(5, 4).double(), torch.ones(4, 3).double())
    with pytest.raises(ShapeError, match=r"key_bias must be \(5,\) or \(2, 5\), got \(4,\)"):
        external_attention(q, torch.ones(5, 4).double(), torch.ones(5, 3).double(), key_bias=torch.ones(4))
