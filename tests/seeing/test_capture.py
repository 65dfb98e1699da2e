"""Capture: any map of any layer from one ordinary forward, which it neither changes nor needs a model edit for."""

import re
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import foveal
import foveal.models
from foveal.analysis.figures import chosen
from foveal.errors import FovealError, NoMatchError, OptionError, ShapeError
from tests.contract.layers import CASES

IMAGE = torch.randn(2, 3, 40, 56)


def small(**graft):
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=3).eval()
    foveal.replace_(model, "layer[34].*.conv2", foveal.LocalAttention.like(kernel_size=3, heads=2))
    foveal.insert_(model, "layer2", foveal.EfficientAttention.like(key_channels=4, heads=2))
    return model


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("space", [(7,), (5, 4), (3, 2, 4)])
def test_a_row_of_each_layer_reproduces_what_it_attends_to(case, space):
    layer, x = case.build(space).eval(), case.map(space)
    with torch.no_grad(), foveal.capture(layer) as maps:
        layer(x)
    call, at = maps[""], tuple(length // 2 for length in space)
    summed = (call.weights(at).unsqueeze(2) * call.values()).flatten(3).sum(3)
    wanted = layer.attend(x)[(..., *at)]
    torch.testing.assert_close(summed, wanted)
    assert call.row(at).shape == (2, layer.heads, *space)
    assert call.mechanism == case.row


def test_outputs_are_the_same_bits_inside_and_after():
    model = small()
    with torch.inference_mode():
        plain = model(IMAGE)
        with foveal.capture(model):
            inside = model(IMAGE)
        after = model(IMAGE)
    assert torch.equal(plain, inside) and torch.equal(plain, after)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_every_layer_is_there_in_the_order_it_ran_and_rows_sum_to_one():
    model = small()
    with torch.no_grad(), foveal.capture(model) as maps:
        model(IMAGE)
    assert next(iter(maps)) == "layer2.attention" and len(maps) == 5
    assert maps["layer3.0.conv2"].size == (3, 4) and maps["layer4.1.conv2"].size == (2, 2)
    for call in maps.values():
        whole = call.row((0, 1)).flatten(2).sum(2)
        assert (whole <= 1 + 1e-5).all() and (whole > 0).all()
        assert call.grid.followed and call.grid.image == (40, 56)
    inner = maps["layer2.attention"].row((2, 3)).flatten(2).sum(2)
    torch.testing.assert_close(inner, torch.ones_like(inner))


def test_shared_maps_and_coefficients_make_the_implied_row():
    layer = foveal.EfficientAttention(6, key_channels=4, heads=2)
    x = torch.randn(2, 6, 5, 3)
    with foveal.capture(layer) as maps:
        layer(x)
    call = maps[""]
    shared, taken = call.parts()["global_maps"], call.coefficients((1, 2))
    assert shared.shape == (2, 2, 2, 5, 3) and taken.shape == (2, 2, 2)
    torch.testing.assert_close(torch.einsum("bhd,bhdyx->bhyx", taken, shared), call.row((1, 2)))


def test_slots_of_external_attention_are_there_for_maps_and_for_tokens():
    torch.manual_seed(0)
    model = timm.create_model("foveal_eamlp_7", num_classes=2).eval()
    with torch.no_grad(), foveal.capture(model) as maps:
        model(torch.randn(1, 3, 32, 48))
    first, deep = maps["tokens.block1.attention"], maps["blocks.0.attention"]
    assert first.size == (8, 12) and first.parts()["slot_maps"].shape == (1, 1, 128, 8, 12)
    assert deep.size == (2, 3) and deep.extra == 1 and deep.parts()["slot_maps"].shape == (1, 16, 64, 2, 3)
    row = first.row((7, 0))
    torch.testing.assert_close(row.flatten(2).sum(2), torch.ones(1, 1))


def test_the_radius_of_explicit_attention_can_be_asked_for_another():
    layer = foveal.ExplicitAttention(6, decay="gaussian", heads=2)
    with foveal.capture(layer) as maps:
        layer(torch.randn(2, 6, 9, 9))
    call = maps[""]
    assert call.parts()["radius"] == pytest.approx(0.75)
    torch.testing.assert_close(call.row((4, 4), radius=0.75), call.row((4, 4)))
    narrow = call.row((4, 4), radius=0.05)[0, 0]
    assert narrow[4, 4] > call.row((4, 4))[0, 0, 4, 4]
    local = foveal.LocalAttention(4, 4, kernel_size=3, heads=1)
    with foveal.capture(local) as others:
        local(torch.randn(1, 4, 3, 3))
    with pytest.raises(OptionError, match="local attention has no radius"):
        others[""].row((0, 0), radius=0.1)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_rows_of_torchs_attention_are_the_weights_it_returns(fused, batch_first):
    layer = nn.MultiheadAttention(8, 2, batch_first=batch_first).eval()
    x = torch.randn(2, 6, 8) if batch_first else torch.randn(6, 2, 8)
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    with torch.no_grad(), foveal.capture(layer) as maps:
        _, weights = layer(x, x, x, key_padding_mask=padding, need_weights=True, average_attn_weights=False)
    for token in range(6):
        torch.testing.assert_close(maps[""].row(token), weights[:, :, token])


def test_a_transformer_encoder_does_not_take_the_way_that_hides_its_maps():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    with torch.no_grad(), foveal.capture(encoder) as maps:
        encoder(torch.randn(2, 5, 8))
    assert list(maps) == ["layers.0.self_attn", "layers.1.self_attn"]


def test_rows_of_timms_attention_reproduce_its_output():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=(32, 48), num_classes=2).eval()
    seen = {}
    model.blocks[0].attn.register_forward_hook(lambda module, args, out: seen.update(out=out))
    with torch.no_grad(), foveal.capture(model, "blocks.0.attn") as maps:
        model(torch.randn(1, 3, 32, 48))
    call = maps["blocks.0.attn"]
    assert call.size == (2, 3) and call.extra == 1 and call.grid.stride == (16, 16) and call.grid.offset == (7.5, 7.5)
    # The fourth position is token 4: the class token is before the first.
    attended = torch.einsum("bhn,bhdn->bhd", call.weights((1, 0)), call.values()).flatten(1)
    torch.testing.assert_close(call.layer.proj(attended), seen["out"][:, 4])
    assert call.row((1, 0)).sum() < 3


def test_a_map_is_laid_where_strides_and_paddings_put_it():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 7, stride=2, padding=3),
        nn.MaxPool2d(3, 2, 1),
        foveal.LocalAttention(4, 4, kernel_size=3, heads=1),
    )
    with torch.no_grad(), foveal.capture(model) as maps:
        model(IMAGE)
    grid = maps["2"].grid
    assert grid.stride == (4, 4) and grid.offset == (0, 0)
    assert grid.position((17, 22)) == (4, 6) and grid.position((0, 55)) == (0, 13)
    image = maps["2"].at_pixel((17, 22), average=True)
    assert image.shape == (2, 40, 56)
    row = maps["2"].row((4, 6), average=True)
    assert torch.equal(image[:, 16, 24], row[:, 4, 6]) and torch.equal(image[:, 18, 24], row[:, 5, 6])


def test_the_centre_found_is_the_centre_of_what_a_position_sees():
    """Against the gradient: with weights of one sign, what a position sees is symmetric around its centre."""
    stack = nn.Sequential(
        nn.ZeroPad2d((2, 1, 0, 3)), nn.Conv2d(1, 1, 5, stride=2, padding=1, bias=False),
        nn.Conv2d(1, 1, 3, dilation=2, padding=2, bias=False), nn.AvgPool2d(2, 2), foveal.NonLocal(1),
    )  # fmt: skip
    for parameter in stack[:4].parameters():
        nn.init.ones_(parameter)
    x = torch.randn(1, 1, 41, 47)
    with torch.no_grad(), foveal.capture(stack) as maps:
        stack(x)
    grid, at = maps["4"].grid, (4, 5)
    seen = x.clone().requires_grad_()
    stack[:4](seen)[0, 0, 4, 5].backward()
    rows, columns = (seen.grad[0, 0].sum(axis) for axis in (1, 0))
    centre = [float((line * torch.arange(len(line))).sum() / line.sum()) for line in (rows, columns)]
    assert grid.pixel(at) == pytest.approx(centre)


def test_a_compiled_model_is_seen_uncompiled():
    layer = foveal.EfficientAttention(4, key_channels=2)
    compiled = torch.compile(layer, backend="eager")
    x = torch.randn(1, 4, 3, 3)
    plain = compiled(x)
    with foveal.capture(compiled) as maps:
        torch.testing.assert_close(compiled(x), plain)
    assert maps["_orig_mod"].row((0, 0)).sum() == pytest.approx(1)


def test_maps_under_autocast_are_those_of_its_type():
    layer = foveal.EfficientAttention(4, key_channels=2)
    with torch.autocast("cpu", dtype=torch.bfloat16), foveal.capture(layer) as maps:
        layer(torch.randn(1, 4, 3, 3))
    assert maps[""].row((0, 0)).dtype == torch.bfloat16
    assert float(maps[""].row((0, 0)).sum()) == pytest.approx(1, abs=2e-2)


def test_what_is_kept_is_a_copy_and_only_the_newest_calls():
    layer = foveal.EfficientAttention(4, key_channels=2)
    x = torch.randn(1, 4, 3, 3)
    with torch.no_grad(), foveal.capture(layer, calls=2) as maps:
        for _ in range(5):
            layer(x)
        before = maps[""].row((0, 0))
        x.zero_()
    assert len(maps.calls("")) == 2
    assert torch.equal(maps[""].row((0, 0)), before)


def test_changed_weights_are_refused_instead_of_mixed():
    layer = foveal.EfficientAttention(4, key_channels=2)
    with foveal.capture(layer) as maps:
        layer(torch.randn(1, 4, 3, 3))
    with torch.no_grad():
        layer.key.weight.add_(1)
    with pytest.raises(FovealError, match="weights of '' have changed since its input was kept"):
        maps[""].row((0, 0))


def test_rows_come_in_chunks():
    layer = foveal.LocalAttention(4, 4, kernel_size=3, heads=2)
    with foveal.capture(layer) as maps:
        layer(torch.randn(2, 4, 3, 5))
    chunks = list(maps[""].rows(chunk=4))
    assert [len(chunk) for chunk in chunks] == [4, 4, 4, 3]
    assert torch.equal(torch.cat(chunks)[7], maps[""].row((1, 2)))


@pytest.mark.parametrize(
    ("name", "where", "error", "said"),
    [
        ("resnet18", "*", NoMatchError, r"no attention that can be read matches '\*'. The model has none"),
        ("small", "layer5", NoMatchError, "matches 'layer5'. The model has 5: layer"),
        ("small", "*", FovealError, "none of the 5 layers that match gave a map"),
        ("swin_tiny_patch4_window7_224", "*", NoMatchError, r"swin_transformer\.WindowAttention is not known"),
    ],
)
def test_nothing_is_never_silent(name, where, error, said):
    model = small() if name == "small" else timm.create_model(name).eval()
    with pytest.raises(error, match=said), foveal.capture(model, where):
        pass


def test_attention_between_two_sequences_is_named():
    layer = nn.MultiheadAttention(4, 1, batch_first=True)
    x = torch.randn(1, 3, 4)
    said = r"attends from one sequence to another\)\. Ask a layer of foveal itself"
    with pytest.raises(FovealError, match=said), foveal.capture(layer):
        layer(x[:, :2], x, x)


class Cube(nn.Module):
    """A layer over three axes in a model of images; its first axis is as long as the image has patches."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.flat = foveal.EfficientAttention(8, key_channels=2)
        self.cube = foveal.LocalAttention(2, 4, kernel_size=3, dims=3, heads=1, relative=False)

    def forward(self, x):
        return self.cube(self.flat(self.patches(x)).reshape(len(x), 2, 4, 2, 2))


def test_a_map_of_other_axes_than_the_image_is_asked_by_position_alone():
    model = Cube().eval()
    with torch.no_grad(), foveal.capture(model) as maps:
        model(torch.randn(1, 3, 8, 8))
    call = maps["cube"]
    given = call._reading.x
    assert torch.equal(call.row((3, 0, 1)), model.cube.position_map(given, at=(3, 0, 1)))
    said = (
        r"'cube' has a map of \(4, 2, 2\) positions, other axes than the \(8, 8\) image has, so no pixel can be "
        r"asked for. Ask for a position: row\(\(2, 1, 1\)\)."
    )
    for ask in (lambda: call.at_pixel((3, 3)), lambda: call.grid.on_image(call.row((0, 0, 0)))):
        with pytest.raises(ShapeError, match=said):
            ask()
    assert list(maps.at_pixel((3, 3))) == ["flat"] and chosen(maps).name == "flat"
    assert repr(call) == "Captured('cube', local, 1 heads, (4, 2, 2) on no image)"


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("kind", ["self", "external"])
def test_maps_made_of_codes_have_no_pixels_and_those_of_the_discriminator_have(mode, kind):
    gan = foveal.models.resnet_gan(16, attention=kind, num_classes=3, width=4, latent=6, in_chans=1).eval()
    labels = torch.tensor([0, 2])
    with mode(), foveal.capture(gan) as maps:
        gan.generator(torch.randn(2, 6), labels)
        gan.discriminator(torch.randn(2, 1, 16, 16), labels)
    made, judged = maps["generator.attention.attention"], maps["discriminator.attention.attention"]
    assert made.row((4, 4)).flatten(2).sum(2).tolist() == [[pytest.approx(1)]] * 2
    said = "is made of codes, not of an image, so no pixel can be asked for. Ask for a position: row"
    with pytest.raises(ShapeError, match=said):
        made.at_pixel((4, 4))
    assert judged.grid.followed and judged.at_pixel((15, 0)).shape == (2, 1, 16, 16)
    assert judged.mechanism == {"self": "non_local", "external": "external"}[kind]


def test_points_of_a_cloud_are_no_pixels_of_an_image():
    model = foveal.models.spct(5, channels=8, depth=1, width=16).eval()
    with torch.no_grad(), foveal.capture(model) as maps:
        model(torch.randn(2, 3, 11))
    call = maps["trunk.layers.0"]
    assert call.row(7).shape == (2, 1, 11) and torch.equal(call.row(7), call.row((7,)))
    assert len(list(call.rows(chunk=4))) == 3
    said = r"'trunk.layers.0' attends among 11 positions of no image, so no pixel can be asked for."
    for ask in (call, maps):
        with pytest.raises(ShapeError, match=said):
            ask.at_pixel((7,))
    assert "evenly" not in repr(maps)


def test_an_image_that_is_given_by_name_is_the_image():
    layer = foveal.EfficientAttention(4, key_channels=2)
    with foveal.capture(layer) as maps:
        layer(x=torch.randn(1, 4, 3, 5))
    assert maps[""].grid.followed and maps[""].grid.image == (3, 5)


def test_what_is_asked_wrongly_is_said_in_a_sentence():
    layer = foveal.EfficientAttention(4, key_channels=2)
    with foveal.capture(layer) as maps:
        layer(torch.randn(1, 4, 3, 3))
    with pytest.raises(ShapeError, match=r"'' has a map of \(3, 3\) positions, got \(3, 0\)"):
        maps[""].row((3, 0))
    with pytest.raises(ShapeError, match=r"a pixel of the \(3, 3\) image is wanted, got \(0, 7\)"):
        maps[""].at_pixel((0, 7))
    with pytest.raises(NoMatchError, match="of 'x' nothing was captured"):
        maps["x"]
    with pytest.raises(OptionError, match="calls must be at least 1"), foveal.capture(layer, calls=0):
        pass


def test_the_code_of_the_page_runs():
    page = (Path(__file__).parents[2] / "docs" / "seeing.md").read_text()
    scope = {}
    exec(compile(re.search(r"```python\n(.*?)```", page, re.DOTALL).group(1), "docs/seeing.md", "exec"), scope)
    assert scope["looks_at"].shape == (2, 2, 224, 224)
    assert scope["everywhere"]["layer2.attention"].shape == (2, 224, 224)
