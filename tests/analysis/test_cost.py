"""Costs are the known ones, formulas and counts meet, and exponents are those of the papers' orders."""

import pytest
import torch
from torch import nn

import foveal
from foveal.analysis.closed_form import check
from foveal.analysis.cost import cost, growth, slope
from foveal.analysis.dry import dry_run
from foveal.analysis.target import Target, find
from foveal.errors import OptionError, ShapeError
from foveal.layers.registry import REGISTRY

SQUARES = [(side, side) for side in (32, 64, 128, 256)]


def test_resnet50_has_its_published_parameters_and_products():
    counted = cost(find("resnet50"), (224, 224))
    assert counted.total.parameters == 25_557_032
    assert counted.total.macs == 4_089_184_256
    assert counted.check.kinds == {"Conv2d": 53, "Linear": 1}
    assert counted.check.equal and counted.check.formula == counted.check.counted == 4_089_184_256
    assert counted.check.rest == 0 and counted.uncounted == ()


@pytest.mark.parametrize("row", REGISTRY, ids=lambda row: row.name)
@pytest.mark.parametrize("size", [(9, 14), (28, 28)])
def test_the_formula_of_every_layer_is_what_is_counted(row, size):
    target = find(row.name, channels=16, options={"heads": 2} if row.name in ("local", "augmented") else {})
    counted = cost(target, size)
    assert counted.check.equal, counted.check
    assert counted.check.formula == counted.macs == row.cost(target.build(size), size)


def test_layers_inside_a_model_are_checked_by_their_own_formula():
    counted = cost(find("foveal_explicit_resnet50"), (64, 64), train=True)
    assert counted.check.kinds["ExplicitAttention"] == 13
    assert counted.check.equal


def test_a_formula_that_is_wrong_is_found():
    class Wrong(foveal.EfficientAttention):
        def macs(self, space):
            return super().macs(space) + 1

    model = nn.Sequential(nn.Conv2d(3, 8, 1), Wrong(8, key_channels=2))
    found = check(model, dry_run(model, (1, 3, 5, 5)))
    assert found.wrong == ("1",) and not found.equal


def test_what_has_no_formula_is_told_apart():
    model = nn.Sequential(nn.Linear(8, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    found = check(model, dry_run(model, (1, 5, 8)))
    assert found.equal
    # The input projection of torch's attention is a parameter, its products are no Linear's.
    assert found.rest == 5 * 8 * 3 * 8 + 2 * 5 * 5 * 8 + 5 * 8 * 8


def test_the_batch_multiplies_what_belongs_to_a_sample():
    one, three = (cost(find("local"), (9, 9), batch=batch) for batch in (1, 3))
    assert three.macs == 3 * one.macs
    assert three.check == one.check
    assert three.total.parameters == one.total.parameters


def test_training_adds_the_backward_and_asks_for_what_is_saved():
    inference, training = (cost(find("local"), (9, 9), train=train) for train in (False, True))
    assert training.total.macs == inference.total.macs
    assert training.macs > 2 * inference.macs
    assert (inference.total.saved_bytes, training.total.peak_bytes) == (None, None)
    assert training.memory == training.total.saved_bytes > 0


def test_local_attention_grows_like_n_and_non_local_towards_its_square():
    local = growth(find("local"), SQUARES)
    assert local.macs_exponent == pytest.approx(1.0, abs=1e-9)
    assert all(step.macs_exponent == pytest.approx(1.0, abs=1e-9) for step in local.steps[1:])
    assert local.memory_exponent == pytest.approx(1.0, abs=1e-9)
    non_local = [step.macs_exponent for step in growth(find("non_local"), SQUARES).steps[1:]]
    assert non_local == sorted(non_local) and 1.99 < non_local[-1] < 2.0
    assert 1.3 < growth(find("explicit"), SQUARES).macs_exponent < 1.5
    assert growth(find("efficient"), SQUARES).macs_exponent < 1.0


def test_nothing_large_is_allocated():
    side = 100_000
    counted = cost(find("local"), (side, side), batch=64, train=True)
    assert counted.memory > 2**40
    assert counted.macs > 64 * side * side


def test_the_slope_is_that_of_a_power():
    assert slope([1, 10, 100], [3, 30, 300]) == pytest.approx(1.0)
    assert slope([4, 16], [5, 80]) == pytest.approx(2.0)
    assert slope([4, 16], [0, 80]) is None


def test_sizes_are_told_as_they_come_and_sorted():
    seen = []
    grown = growth(find("efficient"), [(16, 16), (8, 8)], watch=seen.append)
    assert seen == [(8, 8), (16, 16)] == [step.size for step in grown.steps]
    assert [step.positions for step in grown.steps] == [64, 256]
    assert grown.steps[0].macs_exponent is None


@pytest.mark.parametrize("sizes", [[], [(8, 8)], [(8, 8), (8, 8)], [(4, 16), (8, 8)]])
def test_a_slope_needs_two_sizes(sizes):
    with pytest.raises(OptionError, match=r"^cost: --sizes must be two or more different numbers"):
        growth(find("efficient"), sizes)


def test_a_model_that_does_not_take_the_size_is_told_in_a_sentence():
    with pytest.raises(ShapeError, match=r"^cost: vit_tiny_patch16_224 does not take an input of 1 x 3 x 100 x 100: "):
        cost(find("vit_tiny_patch16_224"), (100, 100))
    with pytest.raises(OptionError, match=r"^cost: --batch must be at least 1, got 0"):
        cost(find("local"), (8, 8), batch=0)


def test_a_model_that_looks_at_values_is_told_in_a_sentence():
    class Selects(nn.Module):
        def forward(self, x):
            return x[x > 0]

    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    for kind in (Selects, Branches):
        with pytest.raises(OptionError, match=r"^cost: values decides by the values of tensors \("):
            cost(Target("values", lambda size, kind=kind: kind(), 3, (4, 4)), (4, 4))


def test_an_operator_that_cannot_be_counted_is_named_in_a_warning():
    class Distances(nn.Module):
        def forward(self, x):
            return torch.cdist(x.flatten(2), x.flatten(2))

    target = Target("distances", lambda size: Distances(), 3, (4, 4))
    with pytest.warns(UserWarning, match=r"^cost: aten\._cdist_forward ran without a formula"):
        assert cost(target, (4, 4)).uncounted == ("aten._cdist_forward",)


def test_modules_come_in_the_model_s_order_with_the_whole_first():
    counted = cost(Target("two", lambda size: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), 3, (4, 4)), (4, 4))
    assert [(row.name, row.kind, row.ran) for row in counted.modules] == [
        ("", "Sequential", True), ("0", "Conv2d", True), ("1", "ReLU", True),
    ]  # fmt: skip
    assert not cost(find("local"), (8, 8)).modules[1].ran
