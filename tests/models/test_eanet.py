"""EANet against a plain forward written from the authors' layout, and its options."""

import math

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import foveal
from foveal.errors import OptionError, ShapeError
from foveal.models import eanet
from foveal.models.backbones import load_weights_, read_weights
from foveal.models.catalog import CATALOG
from foveal.models.segmentation.attention import ATTENTIONS

BLOCK = 591_360


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def image(rows=33, columns=41, batch=1):
    torch.manual_seed(1)
    return torch.randn(batch, 3, rows, columns)


class Made(dict):
    """A state dict in the authors' layout, made by the forward that asks for it."""

    def conv(self, name, x, out, kernel, bias=False, **options):
        shape = (out, x.shape[1], *[kernel] * (x.dim() - 2))
        made = self.setdefault(f"{name}.weight", torch.randn(shape) * math.sqrt(2 / math.prod(shape[1:])))
        run = F.conv1d if x.dim() == 3 else F.conv2d
        return run(x, made, self.setdefault(f"{name}.bias", torch.randn(out)) if bias else None, **options)

    def norm(self, name, x):
        count = x.shape[1]
        for key, value in (("weight", 0.3 + 0.5 * torch.rand(count)), ("bias", 0.1 * torch.randn(count)),
                           ("running_mean", 0.1 * torch.randn(count)), ("running_var", 0.5 + torch.rand(count))
                           ):  # fmt: skip
            self.setdefault(f"{name}.{key}", value)
        mean, var, scale, shift = (self[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, scale, shift)

    def bottleneck(self, name, x, width, stride, dilation):
        y = self.norm(f"{name}.bn1", self.conv(f"{name}.conv1", x, width, 1)).relu()
        y = self.conv(f"{name}.conv2", y, width, 3, stride=stride, padding=dilation, dilation=dilation)
        y = self.norm(f"{name}.bn2", y).relu()
        y = self.norm(f"{name}.bn3", self.conv(f"{name}.conv3", y, 4 * width, 1))
        if stride != 1 or x.shape[1] != 4 * width:
            x = self.norm(f"{name}.downsample.1", self.conv(f"{name}.downsample.0", x, 4 * width, 1, stride=stride))
        return (x + y).relu()


# Stride and dilations of the blocks of the four stages of ResNet-50.
GRIDS = {
    8: ((1, [1] * 3), (2, [1] * 4), (1, [1] + [2] * 5), (1, [2, 8, 16])),
    16: ((1, [1] * 3), (2, [1] * 4), (2, [1] * 6), (1, [1, 4, 8])),
}


NARROW = {"channels": (8, 16, 32, 64), "width": 32}


def reference(state, x, classes, output_stride):
    """The authors' network in evaluation, with an eighth of the channels in its stages and a sixteenth in its head."""
    size = x.shape[2:]
    for number, out, stride in ((0, 64, 2), (3, 64, 1), (6, 128, 1)):
        x = state.conv(f"extractor.0.{number}", x, out, 3, stride=stride, padding=1)
        x = state.norm(f"extractor.0.{number + 1}" if number < 6 else "extractor.1", x).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, (stride, dilations) in enumerate(GRIDS[output_stride]):
        for block, dilation in enumerate(dilations):
            name = f"extractor.{stage + 4}.{block}"
            x = state.bottleneck(name, x, 8 * 2**stage, stride if block == 0 else 1, dilation)
    x = state.norm("fc0.bn", state.conv("fc0.conv", x, 32, 3, padding=1)).relu()
    q = state.conv("linu.conv1", x, 32, 1, bias=True).flatten(2)
    weights = state.conv("linu.linear_0", q, 64, 1).softmax(2)
    weights = weights / (1e-9 + weights.sum(1, keepdim=True))
    y = state.conv("linu.linear_1", weights, 32, 1).view_as(x)
    x = (state.norm("linu.conv2.1", state.conv("linu.conv2.0", y, 32, 1)) + x).relu()
    x = state.norm("fc1.0.bn", state.conv("fc1.0.conv", x, 16, 3, padding=1)).relu()
    return F.interpolate(state.conv("fc2", x, classes, 1, bias=True), size=size, mode="bilinear", align_corners=True)


@pytest.mark.parametrize(
    ("depth", "stem", "count", "backbone"),
    [
        (50, "deep", 34_846_933, 23_631_808),
        (101, "deep", 53_839_061, 42_623_936),
        (50, "torchvision", 34_723_157, 23_508_032),
    ],
)
def test_the_parameters_are_those_of_the_authors(depth, stem, count, backbone):
    with torch.device("meta"):
        model = eanet(depth, stem=stem)
    assert parameters(model) == count
    assert {name: parameters(part) for name, part in model.named_children()} == {
        "backbone": backbone, "fc0": 9_438_208, "attention": BLOCK, "fc1": 1_180_160, "fc2": 5_397,
    }  # fmt: skip


@pytest.mark.parametrize("output_stride", [8, 16])
def test_the_dilations_are_the_multi_grid_of_the_authors_and_the_map_has_the_stride(output_stride):
    with torch.device("meta"):
        model = eanet(output_stride=output_stride)
        shape = model.backbone.forward_features(torch.empty(1, 3, 513, 513)).shape
        assert model(torch.empty(1, 3, 513, 513)).shape == (1, 21, 513, 513)
    side = 512 // output_stride + 1
    assert shape == (1, 2048, side, side)
    for stage, (_, dilations) in enumerate(GRIDS[output_stride], 1):
        convs = [block.conv2 for block in getattr(model.backbone, f"layer{stage}")]
        assert [c.dilation for c in convs] == [(d, d) for d in dilations] == [c.padding for c in convs]


def empty(**options):
    """A model whose numbers are to be loaded."""
    with torch.device("meta"):
        model = eanet(**options)
    return model.to_empty(device="cpu").eval()


def test_what_the_authors_training_saved_loads_and_gives_what_their_network_gives(tmp_path):
    torch.manual_seed(0)
    state, x = Made(), image(25, 17)
    wanted = reference(state, x, 5, 8)
    torch.save({"net": dict(state), "step": 45000}, tmp_path / "final.pth")
    read, model = read_weights(tmp_path / "final.pth"), empty(num_classes=5, **NARROW)
    assert load_weights_(model, read, "final.pth") == []
    torch.testing.assert_close(model(x), wanted, rtol=1e-3, atol=1e-3)
    assert load_weights_(empty(num_classes=3, **NARROW), read, "final.pth") == ["fc2.weight", "fc2.bias"]
    told = empty(num_classes=5, **NARROW).load_state_dict(
        {f"module.{key}": value for key, value in state.items()}, strict=False
    )
    assert not told.unexpected_keys and all(key.endswith("num_batches_tracked") for key in told.missing_keys)


def test_memories_start_equal_and_part_in_training_and_the_rest_starts_by_the_authors_rules():
    torch.manual_seed(0)
    model = eanet(channels=(32, 64, 128, 256))
    unit = model.attention
    assert torch.equal(unit.memory_key, unit.memory_value) and unit.memory_key is not unit.memory_value
    for weight in (unit.memory_key, unit.query.weight, unit.output.weight):
        assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / 512), rel=0.02)
    conv = model.backbone.layer4[2].conv2.weight
    assert float(conv.detach().std()) == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.02)
    assert all(bool((block.bn3.weight == 1).all()) for block in model.backbone.layer4)
    model(image(17, 17, batch=2)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        unit.memory_key -= unit.memory_key.grad
        unit.memory_value -= unit.memory_value.grad
    assert not torch.equal(unit.memory_key, unit.memory_value)


@pytest.mark.parametrize(
    ("attention", "count"),
    [("none", 0), (foveal.EfficientAttention.like(key_channels=64), 590_976), (foveal.NonLocal.like(), 526_592)],
)
def test_another_attention_or_none_stands_in_the_place_of_the_unit(attention, count):
    with torch.device("meta"):
        model = eanet(attention=attention)
        assert model(torch.empty(2, 3, 65, 33)).shape == (2, 21, 65, 33)
    assert parameters(model.attention) == count and parameters(model) == 34_846_933 - BLOCK + count


def test_channels_classes_and_norms_are_options():
    with torch.device("meta"):
        model = eanet(num_classes=3, in_chans=1, norm=lambda count: nn.GroupNorm(8, count))
        assert model(torch.empty(2, 1, 40, 24)).shape == (2, 3, 40, 24)
        assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules())
        synced = eanet(norm=nn.SyncBatchNorm)
    assert isinstance(synced.attention.norm, nn.SyncBatchNorm) and isinstance(synced.backbone.bn1, nn.SyncBatchNorm)
    assert parameters(synced) == 34_846_933


def test_weights_of_the_plain_network_fit_the_backbone_with_torchvisions_stem():
    with torch.device("meta"):
        model, plain = eanet(stem="torchvision"), timm.create_model("resnet50", num_classes=0)
    shapes = {key: value.shape for key, value in plain.state_dict().items()}
    assert {key: value.shape for key, value in model.backbone.state_dict().items()} == shapes


def test_under_autocast_scores_are_finite_and_a_state_dict_goes_round():
    torch.manual_seed(0)
    one, two, x = eanet(num_classes=4, **NARROW).eval(), empty(num_classes=4, **NARROW), image(17, 25)
    two.load_state_dict(one.state_dict())
    with torch.no_grad():
        assert torch.equal(one(x), two(x))
        with torch.autocast("cpu", torch.bfloat16):
            assert one(x).isfinite().all()


def test_what_a_user_gets_wrong_is_said_in_a_sentence():
    with pytest.raises(OptionError, match="^eanet: depth must be one of 10, 18, 34, 50, 101, 152, got 26"):
        eanet(26)
    with pytest.raises(OptionError, match="^eanet: output_stride must be 8 or 16 with the deep stem, got 32"):
        eanet(output_stride=32)
    with pytest.raises(OptionError, match="^eanet: output_stride must be 4 or 8 with the small stem, got 16"):
        eanet(18, output_stride=16, stem="small")
    with pytest.raises(OptionError, match="^eanet: channels must be four numbers"):
        eanet(18, channels=(8, 16))
    with pytest.raises(OptionError, match="^eanet: attention_options are of a mechanism that is named"):
        eanet(10, attention="none", attention_options={"slots": 3})
    with pytest.raises(OptionError, match="stem"):
        eanet(stem="shallow")
    with torch.device("meta"):
        model = eanet()
        with pytest.raises(OptionError, match="^eanet: attention must be 'none', one of 'external'"):
            eanet(attention="self")
        with pytest.raises(ShapeError, match=r"^EANet: images must be \(batch, 3, rows, columns\), got \(1, 1, 9, 9\)"):
            model(torch.empty(1, 1, 9, 9))
        with pytest.raises(ShapeError, match="^EANet: training needs more than one position for its norms"):
            model(torch.empty(1, 3, 8, 8))


@pytest.mark.parametrize(("depth", "stem", "stride"), [(10, "small", 4), (18, "small", 8), (34, "torchvision", 8)])
def test_small_networks_of_plain_blocks_have_the_stride_and_the_multi_grid(depth, stem, stride):
    model = eanet(depth, num_classes=3, channels=(4, 8, 8, 16), width=8, stem=stem, output_stride=stride)
    x = image(2 * stride * 8 + 1, stride * 8 + 1)
    assert model.backbone.forward_features(x).shape == (1, 16, 17, 9)
    assert model(x).shape == (1, 3, *x.shape[2:])
    first = model.backbone.layer4[0].conv2.dilation[0]
    grids = [[conv.dilation[0] for conv in (block.conv1, block.conv2)] for block in list(model.backbone.layer4)[1:]]
    assert grids == [[first * grid] * 2 for grid in (2, 4)][: len(grids)]


@pytest.mark.parametrize("attention", ["none", *ATTENTIONS])
def test_all_but_the_attention_starts_with_the_same_weights_whatever_the_mechanism(attention):
    def made(name):
        torch.manual_seed(3)
        return eanet(10, num_classes=3, channels=(4, 4, 8, 8), width=12, stem="small", output_stride=4, attention=name)

    model, plain = made(attention), made("external").state_dict()
    rest = {key: value for key, value in model.state_dict().items() if not key.startswith("attention.")}
    assert all(torch.equal(value, plain[key]) for key, value in rest.items())
    assert {key for key in plain if not key.startswith("attention.")} == set(rest)
    model(image(17, 21, batch=2)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_dense_models_are_no_classifiers_of_timm():
    assert not [name for name in (*CATALOG, *timm.list_models("*eanet*"), *timm.list_models("*psmnet*"))
                if "psmnet" in name or name.startswith(("eanet", "foveal_eanet"))]  # fmt: skip
