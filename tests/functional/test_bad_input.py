"""What a caller can get wrong is answered in one sentence of ours, whatever its type."""

import numpy as np
import pytest
import torch

import foveal
from foveal import FovealError, OptionError, ShapeError

MAPS = (2, 2, 4, 5, 6)


def q():
    return torch.randn(MAPS)


def memory():
    return torch.randn(3, 4)


CALLS = {
    "local": lambda **o: foveal.local_attention(q(), q(), q(), **{"kernel_size": 3, **o}),
    "efficient": lambda **o: foveal.efficient_attention(q(), q(), q(), **o),
    "external": lambda **o: foveal.external_attention(q(), **{"memory_key": memory(), "memory_value": memory(), **o}),
    "explicit": lambda **o: foveal.explicit_attention(q(), **{"decay": "gaussian", "radius": torch.tensor(0.5), **o}),
    "dot_product": lambda **o: foveal.dot_product_attention(q(), q(), q(), **o),
}
META = torch.empty(3, 4, device="meta")


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        ("local", {"kernel_size": 3.0}, "kernel_size must be a positive integer, or one for each"),
        ("local", {"kernel_size": True}, "kernel_size must be a positive integer"),
        ("local", {"kernel_size": 2**40 + 1}, "kernel_size must be a positive integer"),
        ("local", {"dilation": None}, "dilation must be a positive integer"),
        ("local", {"scale": "1"}, "scale must be a finite number, got str '1'"),
        ("local", {"scale": torch.tensor(2.0)}, "scale must be a finite number, got Tensor. Multiply the queries by a"),
        ("local", {"relative": 3}, "relative must be a tuple of one table a space axis, or None, got int"),
        ("local", {"relative": ()}, "or None, got tuple without any"),
        ("local", {"relative": (None, None)}, r"relative\[0\] must be a tensor, got NoneType"),
        ("local", {"relative": (torch.ones(1, 3, 4).double(),) * 2}, r"relative\[0\] is torch.float64 on cpu, q is"),
        ("local", {"mask": 3}, r"mask must be boolean \(2, 5, 6\), True for .*, got int 3"),
        ("local", {"mask": torch.ones(2, 5, 6, dtype=torch.bool, device="meta")}, "mask is on meta, the maps on cpu"),
        ("local", {"backend": ["tiled"]}, r"there is no backend \['tiled'\]"),
        ("efficient", {"normalization": None}, "normalization must be one of softmax, scaling, got None"),
        ("external", {"memory_key": None}, "memory_key must be a tensor, got NoneType"),
        ("external", {"memory_key": META}, "memory_key is torch.float32 on meta, x is torch.float32 on cpu"),
        ("external", {"memory_value": memory().double()}, "memory_value is torch.float64 on cpu"),
        ("external", {"memory_key": torch.zeros(0, 4), "memory_value": torch.zeros(0, 4)}, "memory_key must be"),
        ("external", {"key_bias": [1.0]}, "key_bias must be a tensor, got list"),
        ("explicit", {"radius": 0.75}, "radius must be a tensor, got float 0.75. Convert it with torch.as_tensor"),
        ("explicit", {"radius": torch.tensor(1 + 1j)}, "radius must be floating point, got torch.complex64"),
        ("explicit", {"offset": None}, "offset must be a finite number of at least 0, got NoneType"),
        ("explicit", {"offset": -1.0}, "offset must be a finite number of at least 0, got float -1.0"),
        ("explicit", {"offset": float("nan")}, "offset must be a finite number of at least 0"),
        ("dot_product", {"scale": "1"}, "scale must be a finite number, got str '1'"),
    ],
)
def test_options_of_operations(call, options, message):
    with pytest.raises(FovealError, match=message) as caught:
        CALLS[call](**options)
    assert str(caught.value).startswith(f"{call}_attention: ")


@pytest.mark.parametrize("wrong", [None, 3, [1.0], np.zeros(MAPS), torch.zeros(2, 2), torch.zeros(MAPS).to_sparse()])
@pytest.mark.parametrize(
    "operation", [foveal.efficient_attention, foveal.dot_product_attention, foveal.local_attention]
)
def test_maps_that_are_none(operation, wrong):
    options = {"kernel_size": 3} if operation is foveal.local_attention else {}
    with pytest.raises(ShapeError, match="q must be"):
        operation(wrong, q(), q(), **options)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: foveal.LocalAttention(16.0, 16),
            "LocalAttention: channels_in must be an integer of at least 1, got 16",
        ),
        (lambda: foveal.LocalAttention(16, 16, kernel_size=4), "kernel_size must be odd, got 4. Use 3 or 5"),
        (lambda: foveal.LocalAttention(16, 16, stride=0), "stride must be an integer of at least 1, got 0"),
        (lambda: foveal.LocalAttention(16, 16, border="wrap"), "border must be one of zero, mask, got 'wrap'"),
        (lambda: foveal.LocalAttention(16, 16, scale="1"), "scale must be a finite number"),
        (lambda: foveal.LocalAttentionStem(block=0), "block must be an integer of at least 1, got 0"),
        (lambda: foveal.EfficientAttention(16, normalization="scalling"), "normalization must be one of softmax, scal"),
        (lambda: foveal.EfficientAttention(16, heads=True), "heads must be an integer of at least 1, got True"),
        (lambda: foveal.ExternalAttention(16, normalization="l1"), "normalization must be one of double, softmax"),
        (lambda: foveal.ExternalAttention(16, slots=0), "slots must be an integer of at least 1, got 0"),
        (lambda: foveal.MultiHeadExternalAttention(16, expansion=1.5), "expansion must be an integer of at least 1"),
        (lambda: foveal.ExplicitAttention(16, offset=None), "offset must be a finite number of at least 0"),
        (lambda: foveal.ExplicitAttention(16, radius=float("nan")), "radius must be a finite number"),
        (lambda: foveal.AugmentedAttention(16, 8, heads=0), "heads must be an integer of at least 1, got 0"),
        (lambda: foveal.AugmentedAttention(16, 8, size=3), "size must be one length a space axis, or None, got 3"),
        (lambda: foveal.NonLocal(-16), "channels must be an integer of at least 1, got -16"),
    ],
)
def test_sizes_of_layers(build, message):
    with pytest.raises(OptionError, match=message):
        build()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (None, "the map must be a tensor, got NoneType"),
        (np.zeros((1, 8, 4, 4)), "the map must be a tensor, got ndarray"),
        (torch.ones(1, 8, 4, 4, dtype=torch.int64), "the map must be floating point, got torch.int64"),
        (torch.ones(1, 8, 4, 4).double(), "the map is torch.float64 on cpu, its weight is torch.float32 on cpu"),
        (torch.ones(1, 8, 0, 4), "only the batch empty, got"),
    ],
)
@pytest.mark.parametrize(
    "layer",
    [foveal.ExplicitAttention(8), foveal.EfficientAttention(8), foveal.NonLocal(8)],
    ids=lambda m: type(m).__name__,
)
def test_maps_of_layers(layer, x, message):
    with pytest.raises(ShapeError, match=message):
        layer(x)


@pytest.mark.parametrize("at", [1, None, "12", (1.0, 2.0), (-1, 0), (4, 0), (1,)])
def test_positions_of_maps(at):
    with pytest.raises(ShapeError, match=r"attention_map: at must name a position of the \(4, 4\) map"):
        foveal.EfficientAttention(8).attention_map(torch.randn(1, 8, 4, 4), at=at)


def test_an_integer_radius_is_a_number():
    assert foveal.ExplicitAttention(8, radius=1).radius.item() == 1.0
