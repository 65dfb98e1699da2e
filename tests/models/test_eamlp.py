"""EAMLP against a plain forward written from the paper's layout, and everything that timm's models offer."""

import math
import re

import pytest
import timm
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import foveal.models  # noqa: F401  registers them
from foveal.errors import DataError, OptionError, ShapeError
from foveal.kernels.cpu.load import WHY_NOT
from foveal.models.catalog import CATALOG
from foveal.models.eamlp_tokens import SPLITS, Tokens, sinusoids, token_grid

ROWS = [name for name in CATALOG if name.startswith("foveal_eamlp_")]
# Parameters in millions with the table of positions for 224 pixels, as the authors' code has them.
WITH_TABLE = {7: 6_146_638, 10: 8_540_110, 12: 10_135_758, 14: 29_877_070, 19: 54_559_054, 24: 89_456_590}


def tiny(**options):
    torch.manual_seed(0)
    return timm.create_model("foveal_eamlp_7", **{"num_classes": 5, "width": 32, "depth": 2, **options})


def table(count, width):
    """The sine and the cosine of position / 10000^(2i / width), one number at a time."""
    rows = [[p / 10000 ** (2 * (j // 2) / width) for j in range(width)] for p in range(count)]
    return torch.tensor([[math.cos(a) if j % 2 else math.sin(a) for j, a in enumerate(row)] for row in rows])


def authors_state(width, depth, classes, ratio, size):
    """A state dict in the layout of the authors' code, random and large enough that every tensor matters."""
    shapes = {"cls_token": (1, 1, width), "norm.weight": (width,), "norm.bias": (width,)}

    def linear(name, into, out, bias=True):
        shapes[f"{name}.weight"] = (out, into)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    def norm(name, channels):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (channels,)

    for number, channels in ((1, 147), (2, 576)):
        at = f"tokens_to_token.attention{number}"
        norm(f"{at}.norm1", channels)
        linear(f"{at}.attn.q_linear", channels, 64)
        linear(f"{at}.attn.linear_0", 64, 128, bias=False)
        linear(f"{at}.attn.linear_1", 128, 64)
        linear(f"{at}.attn.proj", 64, 64)
        norm(f"{at}.norm2", 64)
        linear(f"{at}.mlp.fc1", 64, 64)
        linear(f"{at}.mlp.fc2", 64, 64)
    linear("tokens_to_token.project", 576, width)
    for i in range(depth):
        at = f"blocks.{i}"
        norm(f"{at}.norm1", width)
        linear(f"{at}.attn.trans_dims", width, 4 * width)
        linear(f"{at}.attn.linear_0", 64, 64)
        linear(f"{at}.attn.linear_1", 64, 64)
        linear(f"{at}.attn.proj", 4 * width, width)
        norm(f"{at}.norm2", width)
        linear(f"{at}.mlp.fc1", width, int(ratio * width))
        linear(f"{at}.mlp.fc2", int(ratio * width), width)
    linear("head", width, classes)
    state = {key: torch.randn(shape) / math.sqrt(shape[-1]) for key, shape in shapes.items()}
    state["pos_embed"] = table(math.prod(token_grid((size, size))) + 1, width)[None]
    return state


def reference(state, image, depth):
    """What the authors' network computes, in evaluation, tokens ``(batch, N, D)``."""

    def linear(name, x):
        return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def norm(name, x):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    def external(name, x):
        weights = linear(f"{name}.linear_0", x).softmax(-2)
        return linear(f"{name}.linear_1", weights / (1e-9 + weights.sum(-1, keepdim=True)))

    def perceptron(name, x):
        return linear(f"{name}.fc2", F.gelu(linear(f"{name}.fc1", x)))

    x = image
    for number, (kernel, stride, padding) in enumerate(SPLITS):
        tokens = F.unfold(x, kernel, padding=padding, stride=stride).transpose(1, 2)
        if number == 2:
            break
        at = f"tokens_to_token.attention{number + 1}"
        q = linear(f"{at}.attn.q_linear", norm(f"{at}.norm1", tokens))
        tokens = q + linear(f"{at}.attn.proj", external(f"{at}.attn", q))
        tokens = tokens + perceptron(f"{at}.mlp", norm(f"{at}.norm2", tokens))
        rows, columns = token_grid(x.shape[2:], SPLITS[number])
        x = tokens.transpose(1, 2).reshape(len(image), -1, rows, columns)
    tokens = linear("tokens_to_token.project", tokens)
    tokens = torch.cat((state["cls_token"].expand(len(image), -1, -1), tokens), 1) + state["pos_embed"]
    for i in range(depth):
        x = linear(f"blocks.{i}.attn.trans_dims", norm(f"blocks.{i}.norm1", tokens))
        heads = torch.stack(x.split(64, -1), 1)
        out = torch.cat(external(f"blocks.{i}.attn", heads).unbind(1), -1)
        tokens = tokens + linear(f"blocks.{i}.attn.proj", out)
        tokens = tokens + perceptron(f"blocks.{i}.mlp", norm(f"blocks.{i}.norm2", tokens))
    return linear("head", norm("norm", tokens)[:, 0])


def close(one, two):
    torch.testing.assert_close(one, two, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", ROWS)
def test_the_parameters_are_those_of_the_authors_but_for_the_table_of_positions(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    trainable = sum(p.numel() for p in model.parameters())
    assert trainable == CATALOG[name].parameters
    assert trainable + (1 + 14 * 14) * model.num_features == WITH_TABLE[int(name.rpartition("_")[2])]
    assert not list(model.buffers())


@pytest.mark.parametrize(
    ("name", "size", "macs"), [("7", 224, 1.47), ("7", 384, 4.29), ("14", 224, 6.45), ("19", 224, 11.6)]
)
def test_linear_maps_taken_one_by_one_cost_what_the_ledger_says(name, size, macs):
    with torch.device("meta"):
        model = timm.create_model(f"foveal_eamlp_{name}")
    n, d = math.prod(token_grid((size, size))), model.num_features
    total = n * model.tokens.project.weight.numel()
    for block, splits in ((model.tokens.block1, SPLITS[:1]), (model.tokens.block2, SPLITS[:2])):
        total += math.prod(token_grid((size, size), *splits)) * sum(
            p.numel() for p in block.parameters() if p.dim() == 2
        )
    for block in model.blocks:
        layer = block.attention
        total += (n + 1) * (2 * layer.query.weight.numel() + 2 * layer.heads * layer.slots * 64)
        total += (n + 1) * 2 * block.mlp.fc1.weight.numel()
    assert total + d * 1000 == pytest.approx(macs * 1e9, rel=0.005)


@pytest.mark.parametrize(("size", "width", "depth", "ratio"), [(64, 32, 2, 2.0), (48, 64, 3, 3.0)])
def test_a_checkpoint_of_the_authors_loads_and_gives_what_their_network_gives(size, width, depth, ratio):
    state, image = authors_state(width, depth, 5, ratio, size), torch.randn(2, 3, size, size)
    model = tiny(width=width, depth=depth, mlp_ratio=ratio).eval()
    before = dict(state)
    model.load_state_dict(state)
    assert state.keys() == before.keys()
    with torch.no_grad():
        close(model(image), reference(state, image, depth))
    close(model(image), reference(state, image, depth))


def test_a_table_of_positions_that_was_trained_is_refused():
    state = authors_state(32, 2, 5, 2.0, 64)
    state["pos_embed"] = torch.randn_like(state["pos_embed"])
    with pytest.raises(DataError, match=r"^weights: pos_embed holds no sinusoids, which EAMLP computes"):
        tiny().load_state_dict(state)


def test_a_key_that_the_authors_do_not_have_is_refused():
    state = authors_state(32, 2, 5, 2.0, 64)
    state["blocks.0.attn.qkv.weight"] = torch.zeros(1)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*blocks.0.attn.qkv.weight"):
        tiny().load_state_dict(state)


@pytest.mark.parametrize("size", [224, 384])
def test_positions_are_those_of_the_authors_at_both_of_their_sizes(size):
    count = math.prod(token_grid((size, size))) + 1
    assert count == {224: 197, 384: 577}[size]
    torch.testing.assert_close(sinusoids(count, 256, like=torch.zeros(1)), table(count, 256), rtol=0, atol=1e-7)


@pytest.mark.parametrize("size", [(224, 224), (3, 3), (65, 48), (17, 130)])
def test_any_image_has_the_tokens_that_the_grid_says(size):
    tokens, grid = Tokens(3, 8)(torch.randn(1, 3, *size))
    assert grid == token_grid(size)
    assert tokens.shape == (1, math.prod(grid), 8)


def test_the_tokens_of_an_image_that_is_not_square_stand_in_rows():
    # A crop of a wide image has the same tokens, but for what reads over its border.
    model = tiny(token_drop_rate=0.0)
    torch.nn.init.zeros_(model.tokens.block1.attention.output.weight)
    torch.nn.init.zeros_(model.tokens.block2.attention.output.weight)
    image = torch.randn(1, 3, 64, 128)
    wide, grid = model.tokens(image)
    left, half = model.tokens(image[..., :64])
    assert grid == (4, 8) and half == (4, 4)
    close(wide.mT.unflatten(2, grid)[..., :3], left.mT.unflatten(2, half)[..., :3])


@pytest.mark.parametrize("name", ROWS)
def test_networks_start_as_the_authors_start_them(name):
    model = timm.create_model(name, depth=1, num_classes=3, drop_path_rate=0.0)
    for key, value in model.named_parameters():
        if key.endswith("bias"):
            assert not value.any(), key
        elif ".norm" in key or key.startswith("norm"):
            assert (value == 1).all(), key
        elif value.numel() > 4000:
            assert value.std().item() == pytest.approx(0.02, rel=0.1), key
    first = model.tokens.block1.attention
    assert torch.equal(first.memory_key, first.memory_value)
    assert first.memory_key.data_ptr() != first.memory_value.data_ptr()
    assert model.blocks[0].attention.heads == model.num_features // 16


def test_token_blocks_drop_a_tenth_in_training_and_nothing_in_evaluation():
    model, x = tiny(drop_path_rate=0.0), torch.randn(2, 3, 32, 32)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))
    steady = tiny(drop_path_rate=0.0, token_drop_rate=0.0)
    close(steady(x), steady.eval()(x))


def test_without_dropout_training_and_evaluation_have_the_same_gradients():
    x = torch.randn(2, 3, 65, 48)
    one, two = tiny(drop_path_rate=0.0, token_drop_rate=1e-12), tiny(drop_path_rate=0.0).eval()
    for model in (one, two):
        model(x).square().sum().backward()
    for (key, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5, msg=lambda told, key=key: f"{key}: {told}")


@pytest.mark.skipif(bool(WHY_NOT), reason=str(WHY_NOT))
@pytest.mark.parametrize("training", [False, True])
def test_attention_runs_in_the_native_kernel_but_where_its_weights_are_dropped(training):
    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            seen.append(str(operator))
            return operator(*args, **(kwargs or {}))

    model, seen = tiny(depth=3).train(training), []
    with Calls(), torch.set_grad_enabled(training):
        model(torch.randn(2, 3, 32, 32))
    alone = sum("cpu_external_unit" in name for name in seen)
    slots = sum("cpu_external_slots" in name for name in seen)
    assert (alone, slots) == ((0, 3) if training else (3, 2))


def test_blocks_are_left_out_ever_more_often_with_depth():
    model = timm.create_model("foveal_eamlp_7", width=16, num_classes=2)
    rates = [block.drop_path.drop_prob for block in model.blocks]
    assert rates == pytest.approx([0.1 * i / 6 for i in range(7)])


@pytest.mark.parametrize("frozen", [False, True])
def test_computing_blocks_again_changes_no_gradient(frozen):
    plain, again = tiny(token_drop_rate=0.0, drop_path_rate=0.0), tiny(token_drop_rate=0.0, drop_path_rate=0.0)
    again.set_grad_checkpointing()
    x = torch.randn(2, 3, 32, 48)
    for model in (plain, again):
        model.tokens.requires_grad_(not frozen)
        model.cls_token.requires_grad_(not frozen)
        model(x).square().sum().backward()
    for (key, a), b in zip(plain.named_parameters(), again.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None) == (frozen and key.startswith(("tokens", "cls_token")))
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


def test_features_are_maps_of_the_blocks_asked_for():
    whole = tiny(depth=4).eval()
    features = tiny(depth=4, features_only=True, out_indices=(0, 2)).eval()
    assert not any(re.match(r"model\.(blocks\.3|norm|head)", key) for key in features.state_dict())
    x = torch.randn(2, 3, 65, 48)
    maps = features(x)
    assert [m.shape for m in maps] == [(2, 32, 4, 3)] * 2
    assert features.feature_info.channels() == [32, 32]
    assert features.feature_info.reduction() == [16, 16]
    final, found = whole.forward_intermediates(x, indices=(0, 2))
    for one, two in zip(maps, found, strict=True):
        close(one, two)
    close(final, whole.forward_features(x))
    tokens, first = whole.forward_intermediates(
        x, indices=1, norm=True, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
    )[0]
    close(torch.cat((first, tokens), 1), final)
    assert len(whole.forward_intermediates(x, indices=[1], stop_early=True, intermediates_only=True)) == 1


def test_the_head_can_be_left_out_and_made_anew():
    model, x = tiny(num_classes=0).eval(), torch.randn(2, 3, 32, 32)
    assert model(x).shape == (2, 32)
    assert torch.equal(model(x), model.forward_head(model.forward_features(x), pre_logits=True))
    model.reset_classifier(7)
    assert model.get_classifier().out_features == model.num_classes == model(x).shape[1] == 7
    with pytest.raises(OptionError, match=r"^EAMLP: its head reads the class token, .* got 'avg'"):
        model.reset_classifier(7, "avg")


def test_other_channels_and_image_sizes_are_taken():
    model = tiny(in_chans=1, img_size=(30, 20))
    assert model.img_size == (30, 20)
    assert model(torch.randn(2, 1, 30, 20)).shape == (2, 5)
    with pytest.raises(
        ShapeError, match=r"^EAMLP: images must be \(batch, 1, rows, columns\) of .* got \(2, 1, 9, 2\)"
    ):
        model(torch.randn(2, 1, 9, 2))
    with pytest.raises(OptionError, match=r"^EAMLP: width must be a multiple of 16, for heads of 64, got 40. Use 32"):
        tiny(width=40)


def test_timm_groups_every_parameter_by_depth():
    from timm.models import group_parameters

    model = tiny()
    groups = group_parameters(model, model.group_matcher())
    assert sorted(key for group in groups.values() for key in group) == sorted(
        key for key, _ in model.named_parameters()
    )
    assert model.no_weight_decay() <= {key for key, _ in model.named_parameters()}
