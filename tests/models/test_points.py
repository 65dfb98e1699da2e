"""Networks on point clouds: counts of the papers, plain forwards written from the layout, and the order of points."""

import re
from functools import partial
from itertools import pairwise

import pytest
import timm
import torch
import torch.nn.functional as F

import foveal
from foveal.errors import OptionError, ShapeError
from foveal.models.points import OffsetAttention, PointExternalAttention, PointSelfAttention
from foveal.models.points import offset as offsets
from foveal.models.points.offset import EPS, offset_attention

COUNTS = {
    "spct": 1_360_552, "npct": 1_360_552, "pct": 2_876_136, "eat": 1_409_704, "part_segmenter": 2_446_130,
}  # fmt: skip
SMALL = {"channels": 8, "depth": 2, "width": 16}
LAYERS = {
    "offset": lambda: OffsetAttention(8),
    "self": lambda: PointSelfAttention(8, key_channels=3),
    "external": lambda: PointExternalAttention(8, slots=5),
    "external, plain": lambda: PointExternalAttention(8, slots=5, offset=False),
}


def made(make, seed=0):
    """A module in float64 and evaluation whose norms have statistics of their own."""
    torch.manual_seed(seed)
    module = make().double().eval()
    for each in module.modules():
        if hasattr(each, "running_var"):
            each.running_mean.normal_()
            each.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(each.weight)
            torch.nn.init.normal_(each.bias)
    return module


def clouds(batch=2, n=11, seed=0):
    return torch.randn(batch, 3, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_as_many_as_published_or_counted(name):
    with torch.device("meta"):
        model = getattr(foveal.models, name)()
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]


@pytest.mark.parametrize(("slots", "count"), [(64, "1.41"), (128, "1.48"), (256, "1.61"), (512, "1.87")])
def test_external_attention_adds_its_slots(slots, count):
    with torch.device("meta"):
        model = foveal.models.eat(slots=slots)
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}" == count


def test_point_networks_are_no_classifiers_of_images():
    assert not any(timm.is_model(name) or timm.is_model(f"foveal_{name}") for name in COUNTS)
    assert set(COUNTS) <= set(dir(foveal.models))


def test_offset_attention_is_the_softmax_of_a_row_divided_by_the_sum_of_a_column():
    q, v = clouds(n=6)[:, :2], clouds(n=6, seed=1)
    wanted = torch.zeros_like(v)
    for b in range(2):
        weights = [[float(q[b, :, i] @ q[b, :, j]) for j in range(6)] for i in range(6)]
        weights = [torch.tensor(row, dtype=torch.float64).softmax(0) for row in weights]
        for j in range(6):
            total = EPS + sum(row[j] for row in weights)
            wanted[b, :, j] = sum(v[b, :, i] * weights[i][j] / total for i in range(6))
    torch.testing.assert_close(offset_attention(q, q, v), wanted)
    torch.testing.assert_close(offsets.reference(q, q, v), wanted)


@pytest.mark.parametrize("size", [1, 7, 40, 1000])
def test_slices_give_the_result_and_the_gradients_of_stored_weights(monkeypatch, size):
    monkeypatch.setattr(offsets, "SLICE", size)
    q, k, v = (3 * clouds(n=9, seed=seed) for seed in range(3))
    toward, found = clouds(n=9, seed=3), []
    for run in (offsets.reference, partial(offset_attention, stored=True), partial(offset_attention, stored=False)):
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        out = run(*inputs)
        found.append([out.detach(), *torch.autograd.grad((out * toward).sum(), inputs)])
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


@pytest.mark.parametrize("stored", [True, False])
def test_gradients_of_offset_attention_are_those_of_differences(stored):
    q, v = clouds(1, 4)[:, :2].clone().requires_grad_(), clouds(1, 4, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda q, v: offset_attention(q, q, v, stored=stored), (q, v))


def test_logits_that_would_overflow_are_no_trouble():
    q = 200 * clouds(1, 8).float()
    for stored in (True, False):
        assert offset_attention(q, q, q, stored=stored).isfinite().all()


def test_slices_hold_no_weights_for_the_backward_pass(monkeypatch):
    monkeypatch.setattr(offsets, "SLICE", 64 * 4)
    q = torch.randn(1, 2, 64, requires_grad=True)
    kept = {}
    for stored in (True, False):
        saved = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, saved=saved: saved.setdefault(x.untyped_storage().data_ptr(), x), lambda x: x
        ):
            offset_attention(q, q, q, stored=stored)
        kept[stored] = sum(x.numel() for x in saved.values())
    assert kept[True] >= 64 * 64 > 4 * kept[False]


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_attends_with_the_weights_that_it_shows(name):
    layer, x = made(LAYERS[name]), torch.randn(2, 8, 7, dtype=torch.float64)
    attended, values = layer.attend(x), layer.values(x).flatten(3)
    for j in range(7):
        row = layer.attention_map(x, at=(j,)).flatten(2)
        torch.testing.assert_close(torch.einsum("bhn,bhdn->bhd", row, values), attended[..., j])
        torch.testing.assert_close(row.sum(2), torch.ones(2, 1, dtype=torch.float64))
        torch.testing.assert_close(layer.position_map(x, at=(j,)).sum(2), torch.ones(2, 1, dtype=torch.float64))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_adds_the_normed_map_of_the_offset(name):
    layer, x = made(LAYERS[name]), torch.randn(2, 8, 7, dtype=torch.float64)
    attended = layer.attend(x)[:, 0]
    inner = attended if name in ("self", "external, plain") else x - attended
    wanted = x + F.relu(norm(layer.norm, F.conv1d(inner, layer.output.weight[:, :, None], layer.output.bias)))
    torch.testing.assert_close(layer(x), wanted)


@pytest.mark.parametrize("name", LAYERS)
def test_every_parameter_of_a_layer_learns(name):
    torch.manual_seed(0)
    layer = LAYERS[name]()
    layer(torch.randn(2, 8, 7)).square().sum().backward()
    # The softmax over points takes away what the bias of the query adds.
    assert [n for n, p in layer.named_parameters() if p.grad is None or not p.grad.any()] in ([], ["query.bias"])


def norm(module, x):
    shape = (1, -1, *[1] * (x.dim() - 2))
    mean, var, scale, shift = (
        each.reshape(shape) for each in (module.running_mean, module.running_var, module.weight, module.bias)
    )
    return (x - mean) / (var + 1e-5).sqrt() * scale + shift


def projected(module, x, slope=0.0):
    """Linear map of the channels, norm, activation, of points ``(batch, channels, n)``."""
    linear, normed, _ = module
    bias = 0 if linear.bias is None else linear.bias[:, None]
    return F.leaky_relu(norm(normed, linear.weight @ x + bias), slope)


def plain_attention(layer, x):
    q, v = layer.query_key.weight @ x, layer.value.weight @ x + layer.value.bias[:, None]
    weights = (q.mT @ q).softmax(2)
    inner = x - v @ (weights / (1e-9 + weights.sum(1, keepdim=True)))
    return x + F.relu(norm(layer.norm, layer.output.weight @ inner + layer.output.bias[:, None]))


def plain_head(head, x, slope):
    first, _, second, _, last = head
    x = projected(second, projected(first, x.amax(2)[:, :, None], slope), slope)[:, :, 0]
    return x @ last.weight.mT + last.bias


def test_spct_is_what_its_layout_says():
    model, x = made(lambda: foveal.models.spct(5, **SMALL)), clouds()
    trunk = model.trunk
    h = projected(trunk.embedding[1], projected(trunk.embedding[0], x))
    first = plain_attention(trunk.layers[0], h)
    fused = projected(trunk.fuse, torch.cat((first, plain_attention(trunk.layers[1], first)), 1), 0.2)
    torch.testing.assert_close(model(x), plain_head(model.head, fused, 0.0))


def plain_neighbours(stage, xyz, features):
    """One sampled point after the other."""
    count, near = stage.grouping.points, stage.grouping.neighbours
    chosen, away = [0], torch.full((xyz.shape[1],), torch.inf, dtype=xyz.dtype)
    while len(chosen) < count:
        away = torch.minimum(away, (xyz - xyz[:, chosen[-1:]]).square().sum(0))
        chosen.append(int(away.argmax()))
    out = []
    for c in chosen:
        around = (xyz - xyz[:, c : c + 1]).square().sum(0).argsort()[:near]
        own = features[:, c : c + 1].expand(-1, near)
        x = torch.cat((features[:, around] - own, own))[None]
        out.append(projected(stage.local[1], projected(stage.local[0], x))[0].amax(1))
    return xyz[:, chosen], torch.stack(out, 1)


def test_pct_is_what_its_layout_says():
    model = made(lambda: foveal.models.pct(5, groupings=[(8, 4, 12), (5, 3, 16)], depth=2, width=16))
    trunk, x, embedded = model.trunk, clouds(), []
    points = projected(trunk.embedding.points[1], projected(trunk.embedding.points[0], x))
    for xyz, features in zip(x, points, strict=True):
        for stage in trunk.embedding.stages:
            xyz, features = plain_neighbours(stage, xyz, features)
        embedded.append(features)
    h = torch.stack(embedded)
    first = plain_attention(trunk.layers[0], projected(trunk.mix[1], projected(trunk.mix[0], h)))
    fused = projected(trunk.fuse, torch.cat((first, plain_attention(trunk.layers[1], first), h), 1), 0.2)
    torch.testing.assert_close(model(x), plain_head(model.head, fused, 0.2))


def test_every_point_of_a_part_network_sees_itself_the_cloud_and_the_category():
    model, x = made(lambda: foveal.models.part_segmenter(6, num_categories=3, **SMALL)), clouds()
    features, category = model.trunk(x), torch.tensor([2, 0])
    told = projected(model.category, F.one_hot(category, 3).double()[:, :, None], 0.2)
    whole = [features.amax(2, keepdim=True), features.mean(2, keepdim=True), told]
    seen = torch.cat([features, *(each.expand(-1, -1, 11) for each in whole)], 1)
    first, _, second, last = model.head
    wanted = last.weight @ projected(second, projected(first, seen)) + last.bias[:, None]
    torch.testing.assert_close(model(x, category), wanted)
    assert not torch.allclose(model(x, torch.tensor([1, 0]))[0], wanted[0])


def test_without_attention_only_what_is_attended_to_is_gone():
    model, x = made(lambda: foveal.models.spct(5, attention="none", **SMALL)), clouds()
    h = model.trunk.embedding(x)
    for layer in model.trunk.layers:
        wanted = h + F.relu(norm(layer.norm, layer.output.weight @ h + layer.output.bias[:, None]))
        torch.testing.assert_close(layer(h), wanted)
        h = wanted
    whole, part = foveal.models.spct(5, **SMALL), foveal.models.spct(5, attention="none", **SMALL)
    gone = set(whole.state_dict()) - set(part.state_dict())
    assert {name.split(".")[3] for name in gone} == {"query_key", "value"}


@pytest.mark.parametrize("n", [1, 2, 7, 30])
@pytest.mark.parametrize("name", ["spct", "npct", "eat"])
def test_the_order_of_the_points_changes_no_class(name, n):
    model, x = made(lambda: getattr(foveal.models, name)(5, **SMALL)), clouds(n=n)
    for seed in range(3):
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(model.trunk(x[:, :, order]), model.trunk(x)[:, :, order])
        torch.testing.assert_close(model(x[:, :, order]), model(x))


@pytest.mark.parametrize("attention", ["offset", "self", "external"])
def test_parts_go_with_their_points(attention):
    model = made(lambda: foveal.models.part_segmenter(6, num_categories=0, attention=attention, **SMALL))
    x, order = clouds(), torch.randperm(11, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(x[:, :, order]), model(x)[:, :, order])


def test_pct_reads_the_order_of_its_points_by_the_first_alone():
    model, x = made(lambda: foveal.models.pct(5, groupings=[(6, 3, 8)], depth=1, width=16)), clouds()
    order = torch.tensor([0, *range(10, 0, -1)])
    torch.testing.assert_close(model(x[:, :, order]), model(x))


@pytest.mark.parametrize("name", ["spct", "npct", "eat"])
def test_classes_do_not_depend_on_the_other_clouds_of_a_batch(name):
    model, x = made(lambda: getattr(foveal.models, name)(5, **SMALL)), clouds(3)
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]))


@pytest.mark.parametrize("attention", ["offset", "self", "external"])
def test_one_step_trains_every_parameter_of_pct(attention):
    torch.manual_seed(0)
    model = foveal.models.pct(4, groupings=[(8, 4, 8), (4, 3, 8)], depth=2, width=16, attention=attention, slots=3)
    x, labels = torch.randn(4, 3, 16), torch.tensor([0, 1, 2, 3])
    gradients = []
    for _ in range(2):
        torch.manual_seed(1)
        model.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    untouched = [n for n, p in model.named_parameters() if p.grad is None]
    assert untouched == []
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_what_points_attend_to_can_be_captured():
    model = made(lambda: foveal.models.spct(5, **SMALL))
    with foveal.capture(model) as maps:
        model(clouds())
    assert [name for name in maps] == ["trunk.layers.0", "trunk.layers.1"]


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: foveal.models.pct()(torch.zeros(2, 3, 300)), ShapeError,
         "points: this network samples 512 points, got clouds of 300. Resample them to more, or"),
        (lambda: foveal.models.spct(**SMALL)(torch.zeros(2, 300, 3)), ShapeError,
         "points: clouds must be (batch, 3, n), got (2, 300, 3). Clouds of shape (batch, n, 3) become that by .mT."),
        (lambda: foveal.models.spct(**SMALL)(torch.zeros(2, 3, 0)), ShapeError,
         "points: clouds must be (batch, 3, n), got (2, 3, 0)."),
        (lambda: foveal.models.spct(**SMALL)(torch.zeros(1, 3, 9)), ShapeError,
         "PointClassifier: batch normalisation over whole clouds needs at least two of them in training, got one."),
        (lambda: foveal.models.part_segmenter(**SMALL)(torch.zeros(2, 3, 9)), ShapeError,
         "PartSegmenter: categories must be integers of shape (2,), one a sample, got NoneType."),
        (lambda: foveal.models.part_segmenter(**SMALL)(torch.zeros(2, 3, 9), torch.tensor([0, 16])), OptionError,
         "PartSegmenter: categories must be 0 to 15, got 0 to 16. Check num_categories."),
        (lambda: foveal.models.pct(groupings=[(4, 4, 8), (5, 2, 8)]), OptionError,
         "pct: a stage leaves 4 points, the next asks for 5. Let the points grow fewer from stage to stage."),
        (lambda: foveal.models.pct(groupings=[]), OptionError, "pct: groupings must have a stage at least, got none."),
        (lambda: foveal.models.pct(attention="local"), OptionError,
         "points: attention must be one of offset, self, external, none, got 'local'."),
        (lambda: foveal.models.eat(slots=0), OptionError,
         "PointExternalAttention: slots must be an integer of at least 1, got 0."),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_sentence(call, error, told):
    with pytest.raises(error, match=f"^{re.escape(told)}"):
        call()


def test_more_slots_cost_what_the_layer_says():
    costs = [PointExternalAttention(8, slots=slots).macs((10,)) for slots in (4, 5, 6)]
    assert {after - before for before, after in pairwise(costs)} == {2 * 8 * 10}
