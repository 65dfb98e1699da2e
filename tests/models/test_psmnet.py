"""PSMNet against a plain forward written from the authors' layout, and with attention over its volume."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import foveal
from foveal.errors import OptionError, ShapeError
from foveal.models import psmnet
from foveal.models.stereo import cost_volume, crop_to, pad_to
from foveal.models.stereo.features import WindowPool

STACKED, BASIC = 5_224_768, 3_672_896


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def pair(rows=32, columns=48, batch=2):
    torch.manual_seed(1)
    return torch.randn(batch, 3, rows, columns), torch.randn(batch, 3, rows, columns)


def tiny(trunk="stacked", **options):
    torch.manual_seed(0)
    return psmnet(trunk, **{"max_disparity": 16, **options})


class Made(dict):
    """A state dict in the authors' layout, made by the forward that asks for it."""

    def ask(self, key, shape):
        if key not in self:
            self[key] = torch.randn(shape) * math.sqrt(2 / math.prod(shape[1:]))
        return self[key]

    def conv(self, name, x, out, kernel, **options):
        run = F.conv3d if x.dim() == 5 else F.conv2d
        return run(x, self.ask(f"{name}.weight", (out, x.shape[1], *[kernel] * (x.dim() - 2))), **options)

    def norm(self, name, x):
        count = x.shape[1]
        for key, value in (("weight", 0.5 + torch.rand(count)), ("bias", 0.1 * torch.randn(count)),
                           ("running_mean", 0.1 * torch.randn(count)), ("running_var", 0.5 + torch.rand(count)),
                           ("num_batches_tracked", torch.tensor(7))):  # fmt: skip
            self.setdefault(f"{name}.{key}", value)
        mean, var, scale, shift = (self[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, scale, shift)

    def both(self, name, x, out, kernel=3, **options):
        return self.norm(f"{name}.1", self.conv(f"{name}.0", x, out, kernel, **options))

    def up(self, name, x, out):
        w = self.ask(f"{name}.0.weight", (x.shape[1], out, 3, 3, 3))
        return self.norm(f"{name}.1", F.conv_transpose3d(x, w, stride=2, padding=1, output_padding=1))


def features(state, x, corners):
    at = "module.feature_extraction"
    for number in (0, 2, 4):
        x = state.both(f"{at}.firstconv.{number}", x, 32, stride=2 if number == 0 else 1, padding=1).relu()
    found = []
    for layer, (out, count, stride, dilation) in enumerate(
        ((32, 3, 1, 1), (64, 16, 2, 1), (128, 3, 1, 1), (128, 3, 1, 2)), 1
    ):
        for block in range(count):
            name, step = f"{at}.layer{layer}.{block}", stride if block == 0 else 1
            y = state.both(f"{name}.conv1.0", x, out, stride=step, padding=dilation, dilation=dilation).relu()
            y = state.both(f"{name}.conv2", y, out, padding=dilation, dilation=dilation)
            same = step == 1 and x.shape[1] == out
            x = y + (x if same else state.both(f"{name}.downsample", x, out, 1, stride=step))
        found.append(x)
    joined = [found[1], found[3]]
    for branch, window in ((4, 8), (3, 16), (2, 32), (1, 64)):
        y = F.avg_pool2d(x, [min(window, length) for length in x.shape[2:]])
        y = state.both(f"{at}.branch{branch}.1", y, 32, 1).relu()
        joined.append(F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=corners))
    y = state.both(f"{at}.lastconv.0", torch.cat(joined, 1), 128, padding=1).relu()
    return state.conv(f"{at}.lastconv.2", y, 32, 1)


def reference(state, left, right, trunk, disparities, corners):
    """What the authors' network puts out in training, but for the norms, which are those of evaluation."""

    def two(name, x):
        y = state.both(f"module.{name}.0", x, 32, padding=1).relu()
        return state.both(f"module.{name}.2", y, 32, padding=1)

    def scores(name, x):
        y = state.both(f"module.{name}.0", x, 32, padding=1).relu()
        return state.conv(f"module.{name}.2", y, 1, 3, padding=1)

    def hourglass(name, x, down, up):
        y = state.both(f"{name}.conv1.0", x, 64, stride=2, padding=1).relu()
        before = state.both(f"{name}.conv2", y, 64, padding=1)
        before = (before if up is None else before + up).relu()
        y = state.both(f"{name}.conv3.0", before, 64, stride=2, padding=1).relu()
        y = state.both(f"{name}.conv4.0", y, 64, padding=1).relu()
        after = (state.up(f"{name}.conv5", y, 64) + (before if down is None else down)).relu()
        return state.up(f"{name}.conv6", after, 32), before, after

    def disparity(x):
        x = F.interpolate(x, size=(disparities, *left.shape[2:]), mode="trilinear", align_corners=corners)
        return torch.einsum("bdhw,d->bhw", x[:, 0].softmax(1), torch.arange(float(disparities)))

    volume = cost_volume(features(state, left, corners), features(state, right, corners), disparities // 4)
    x = two("dres0", volume).relu()
    x = two("dres1", x) + x
    if trunk == "basic":
        for name in ("dres2", "dres3", "dres4"):
            x = two(name, x) + x
        return [disparity(scores("classify", x))]
    out1, pre1, post1 = hourglass("module.dres2", x, None, None)
    out2, _, post2 = hourglass("module.dres3", out1 + x, pre1, post1)
    out3, _, _ = hourglass("module.dres4", out2 + x, pre1, post2)
    one = scores("classif1", out1 + x)
    two_of = scores("classif2", out2 + x) + one
    return [disparity(s) for s in (one, two_of, scores("classif3", out3 + x) + two_of)]


@pytest.mark.parametrize(("trunk", "count"), [("stacked", STACKED), ("basic", BASIC)])
def test_the_parameters_are_those_of_the_authors(trunk, count):
    with torch.device("meta"):
        model = psmnet(trunk)
    assert parameters(model) == count
    parts = {name: parameters(part) for name, part in model.named_children()}
    hourglass = {"stacked": 553_664, "basic": 55_424}[trunk]
    last = {f"classif{i}": 28_576 for i in (1, 2, 3)} if trunk == "stacked" else {"classify": 28_576}
    assert parts == {
        "feature_extraction": 3_339_552, "dres0": 83_072, "dres1": 55_424, "dres2": hourglass, "dres3": hourglass,
        "dres4": hourglass, **last, "attentions": 0,
    }  # fmt: skip


def test_the_training_crop_of_the_paper_has_the_sizes_of_the_paper():
    sizes = {}
    with torch.device("meta"):
        model = psmnet()
        for name in ("feature_extraction", "dres0", "dres2.conv1", "dres2.conv3", "classif3"):
            model.get_submodule(name).register_forward_hook(
                lambda m, i, o, n=name: sizes.update({n: tuple(o.shape[1:])})
            )
        outputs = model(torch.empty(1, 3, 256, 512), torch.empty(1, 3, 256, 512))
    assert sizes == {
        "feature_extraction": (32, 64, 128), "dres0": (32, 48, 64, 128), "dres2.conv1": (64, 24, 32, 64),
        "dres2.conv3": (64, 12, 16, 32), "classif3": (1, 48, 64, 128),
    }  # fmt: skip
    assert [tuple(o.shape) for o in outputs] == [(1, 256, 512)] * 3


@pytest.mark.parametrize(("trunk", "corners"), [("stacked", True), ("stacked", False), ("basic", True)])
def test_a_checkpoint_of_the_authors_loads_and_gives_what_their_network_gives(trunk, corners):
    torch.manual_seed(0)
    state, (left, right) = Made(), pair(16, 48)
    wanted = reference(state, left, right, trunk, 32, corners)
    model = psmnet(trunk, max_disparity=32, align_corners=corners)
    assert {key.removeprefix("module.") for key in state} == model.state_dict().keys()
    model.load_state_dict(dict(state))
    for part in model.modules():
        part.training = False
    torch.testing.assert_close(model(left, right), wanted[-1], rtol=1e-3, atol=1e-3)
    model.training = True
    for got, want in zip(model(left, right), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)


def test_convolutions_start_as_the_authors_do_and_transposed_ones_as_torch_does():
    model = tiny(attention="nonlocal")
    for part in model.modules():
        if isinstance(part, nn.Conv2d | nn.Conv3d) and part.weight.numel() > 20_000:
            wanted = math.sqrt(2 / (math.prod(part.kernel_size) * part.out_channels))
            assert float(part.weight.detach().std()) == pytest.approx(wanted, rel=0.05)
    up = model.dres2.conv6[0].weight
    assert float(up.detach().abs().max()) <= 1 / math.sqrt(32 * 27) + 1e-6
    assert not model.attentions["dres1"].norm.weight.any(), "a non-local block starts as the identity"


@pytest.mark.parametrize(("trunk", "outputs"), [("stacked", 3), ("basic", 1)])
def test_every_parameter_learns_and_evaluation_gives_one_map_within_the_range(trunk, outputs):
    model, images = tiny(trunk), pair()
    given = model(*images)
    assert isinstance(given, tuple) and [tuple(x.shape) for x in given] == [(2, 32, 48)] * outputs
    sum(x.square().mean() for x in given).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    one = model.eval()(*images)
    assert isinstance(one, torch.Tensor) and one.min() >= 0 and one.max() <= 15.001


@pytest.mark.parametrize("attention", ["efficient", "nonlocal", foveal.ExternalAttention.like(slots=8)])
def test_attention_stands_where_it_is_asked_for_and_learns(attention):
    model, images = tiny(attention=attention, sites=("dres3", "dres1")), pair(16, 32)
    assert list(model.attentions) == ["dres1", "dres3"]
    seen = []
    for layer in model.attentions.values():
        layer.register_forward_hook(lambda m, i, o: seen.append(tuple(i[0].shape)))
    sum(x.square().mean() for x in model(*images)).backward()
    assert seen == [(2, 32, 4, 4, 8)] * 2
    assert all(p.grad is not None for p in model.attentions.parameters())
    basic = tiny("basic", attention=attention, sites=("dres4",)).eval()
    assert basic(*images).shape == (2, 16, 32)


@pytest.mark.parametrize(("attention", "more"), [("efficient", 4_224), ("nonlocal", 4_288)])
def test_attention_of_32_keys_costs_few_parameters(attention, more):
    with torch.device("meta"):
        model = psmnet(attention=attention)
    assert parameters(model) == STACKED + more


def test_a_checkpoint_without_attention_loads_into_a_model_with_it():
    plain, attending = tiny(), tiny(attention="nonlocal")
    missing = attending.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys and all(key.startswith("attentions.") for key in missing.missing_keys)
    left, right = pair(16, 32)
    torch.testing.assert_close(attending.eval()(left, right), plain.eval()(left, right))


def test_a_state_dict_goes_round():
    one, two = tiny(attention="efficient"), psmnet(max_disparity=16, attention="efficient")
    two.load_state_dict(one.state_dict())
    images = pair(16, 32)
    torch.testing.assert_close(one.eval()(*images), two.eval()(*images), rtol=0, atol=0)


def test_under_autocast_disparities_stay_float32_and_close():
    model, images = tiny(attention="efficient").eval(), pair()
    with torch.autocast("cpu", torch.bfloat16):
        low = model(*images)
    assert low.dtype == torch.float32 and low.isfinite().all()
    assert (low - model(*images)).abs().mean() < 0.5


def test_under_autocast_gradients_are_numbers():
    # 48 disparities, not 16: on a volume two deep, parts of the bfloat16 weight gradient of torch's own 3-D
    # convolution on processors are memory that nobody wrote (docs/training.md).
    model, images = tiny(attention="efficient", max_disparity=48).train(), pair()
    with torch.autocast("cpu", torch.bfloat16):
        trained = model(*images)
    assert all(x.dtype == torch.float32 and x.isfinite().all() for x in trained)
    sum(x.mean() for x in trained).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(x.isfinite().all() for x in gradients)


def test_sizes_that_are_no_multiples_are_refused_and_padding_makes_them_fit():
    model, (left, right) = tiny().eval(), pair(21, 35)
    with pytest.raises(ShapeError, match=r"in multiples of 16, got \(2, 3, 21, 35\).*Pad them with .*pad_to\.$"):
        model(left, right)
    padded = [pad_to(x) for x in (left, right)]
    assert padded[0].shape == (2, 3, 32, 48)
    assert torch.equal(padded[0][..., 11:, :35], left), "zeros lie on the top and on the right"
    assert not padded[0][..., :11, :].any() and not padded[0][..., 35:].any()
    found = model(*padded)
    assert torch.equal(crop_to(found, (21, 35)), found[:, 11:, :35])
    assert torch.equal(crop_to(pad_to(left), (21, 35)), left) and pad_to(left[..., :16, :32]).shape[2:] == (16, 32)


def test_what_a_user_gets_wrong_is_said_in_a_sentence():
    model, (left, right) = tiny(), pair(16, 32)
    with pytest.raises(ShapeError, match="of one size in multiples of 16"):
        model(left, right[..., :16])
    with pytest.raises(ShapeError, match=r"^PSMNet: both images must be \(batch, 3, rows, columns\)"):
        model(left[:, :1], right[:, :1])
    with pytest.raises(ShapeError, match=r"^PSMNet: training needs two pairs.*got one of \(16, 32\)"):
        model(left[:1], right[:1])
    with pytest.raises(OptionError, match="^psmnet: max_disparity must be a multiple of 16, got 100. Use 112."):
        psmnet(max_disparity=100)
    with pytest.raises(OptionError, match="^psmnet: sites must be some of dres1, dres2, dres3, dres4, got 'dres1'"):
        psmnet(attention="efficient", sites="dres1")
    with pytest.raises(OptionError, match="^psmnet: attention must be 'efficient', 'nonlocal', 'none'"):
        psmnet(attention="self")
    with pytest.raises(OptionError, match="trunk"):
        psmnet("hourglass")
    with pytest.raises(ShapeError, match="^crop_to: maps must be at least"):
        crop_to(left, (17, 32))


def test_windows_are_those_of_the_authors_wherever_they_fit():
    x = torch.randn(1, 2, 64, 130)
    assert torch.equal(WindowPool(64)(x), nn.AvgPool2d(64)(x))
    small = x[..., :5, :7]
    torch.testing.assert_close(WindowPool(64)(small), small.mean((2, 3), keepdim=True))


def test_a_gray_pair_runs_where_the_model_is_made_for_it():
    images = [x[:, :1] for x in pair(16, 32)]
    assert tiny(in_chans=1).eval()(*images).shape == (2, 16, 32)


@pytest.mark.parametrize("trunk", ["stacked", "basic"])
def test_a_narrow_network_is_the_same_with_fewer_channels_everywhere(trunk):
    with torch.device("meta"):
        whole, narrow = psmnet(trunk, attention="nonlocal"), psmnet(trunk, attention="nonlocal", width=8)
    shapes = narrow.state_dict()
    for key, value in whole.state_dict().items():
        kept = key.startswith("attentions.") or value.dim() == 0
        ratios = {a / b for a, b in zip(value.shape[:2], shapes[key].shape[:2], strict=True) if a not in (1, 3)}
        assert kept or ratios == {4.0}, key
    model, images = tiny(trunk, width=8, attention="efficient", key_channels=8), pair(16, 32)
    sum(x.square().mean() for x in model(*images)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
