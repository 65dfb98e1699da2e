"""Advice: candidates cost what a model built that way costs, exceed what they exceed, and come in order."""

import copy

import pytest
import torch
from torch import nn

from foveal.analysis.advice import Costs, advise, exceeded, exchanged
from foveal.analysis.budgets import parse_budget, parse_budgets
from foveal.analysis.dry import dry_run
from foveal.analysis.operators import Operator, operators
from foveal.analysis.prediction import Speeds
from foveal.analysis.prediction_check import check_models, median_error
from foveal.analysis.target import Target, find
from foveal.analysis.without_contents import without_contents
from foveal.errors import NoMatchError, OptionError, ShapeError
from foveal.models.mechanisms import with_attention

SIZE = (32, 32)
SPEEDS = Speeds({f"{kind} {unit}": 1e-9 for kind in ("product", "elementwise") for unit in ("calls", "macs", "near")})


@pytest.fixture(scope="module")
def target():
    return find("resnet10t", options={"num_classes": 10})


@pytest.fixture(scope="module")
def advice(target):
    return advise(target, SIZE, parse_budgets(["macs=+20%", "params=+50k"]), speeds=SPEEDS)


def test_operators_and_the_dry_run_count_the_same(target):
    model = target.build(SIZE)
    seen, ran = operators(without_contents(model, "meta"), (2, 3, *SIZE)), dry_run(model, (2, 3, *SIZE))
    assert seen.macs == ran.macs[""]
    assert seen.peak == ran.peak_bytes[""]


@pytest.mark.parametrize(
    ("name", "level"), [("local", "site"), ("nonlocal", "stage"), ("cbam", "stage"), ("augmented", "model")]
)
def test_a_candidate_costs_what_the_model_built_that_way_costs(target, advice, name, level):
    candidate = [c for c in advice.candidates if (c.mechanism, c.level) == (name, level)][-1]
    model = copy.deepcopy(target.build(SIZE))
    with_attention(model, name, sites=candidate.sites, example=torch.zeros(1, 3, *SIZE))
    built = operators(model, (1, 3, *SIZE))
    assert candidate.costs.macs == built.macs
    assert candidate.costs.memory == built.peak
    assert candidate.costs.params == sum(p.numel() for p in model.parameters())
    assert candidate.costs.latency == pytest.approx(SPEEDS.predict(built.rows))


def test_every_mechanism_has_its_whole_place_its_stages_and_its_sites(advice):
    assert advice.left_out == {}
    levels = {(c.mechanism, c.level) for c in advice.candidates}
    assert {name for name, level in levels if level == "model"} == {
        "se", "eca", "cbam", "nonlocal", "augmented", "local", "efficient", "external", "explicit",
    }  # fmt: skip
    local = [c for c in advice.candidates if c.mechanism == "local"]
    whole = next(c for c in local if c.level == "model")
    assert sorted(s for c in local if c.level == "site" for s in c.sites) == sorted(whole.sites)


def test_what_fits_comes_first_and_each_group_in_order_of_cost(advice):
    assert advice.ranked_by == "macs"
    fits = [c.fits for c in advice.candidates]
    assert fits == sorted(fits, reverse=True)
    assert True in fits and False in fits
    for group in (True, False):
        costs = [c.costs.macs for c in advice.candidates if c.fits is group]
        assert costs == sorted(costs)


def test_a_candidate_above_a_budget_says_by_how_much(advice):
    for candidate in advice.candidates:
        over = {}
        if candidate.costs.macs > 1.2 * advice.own.macs:
            over["macs"] = candidate.costs.macs / (1.2 * advice.own.macs) - 1
        if candidate.costs.params > advice.own.params + 50_000:
            over["params"] = candidate.costs.params / (advice.own.params + 50_000) - 1
        assert candidate.exceeds == pytest.approx(over)


def test_exactly_the_limit_is_within_it():
    costs = Costs(None, 100, 10, 10)
    assert exceeded({parse_budget("macs=100"): 100.0}, costs) == {}
    assert exceeded({parse_budget("macs=80"): 80.0}, costs) == {"macs": pytest.approx(0.25)}


def test_only_operators_of_the_sites_are_exchanged():
    own = [Operator(name, "product", 1, 1, 0) for name in ("a", "a.b", "ab", "")]
    other = [Operator(name, "product", 2, 1, 0) for name in ("a", "a.b.c", "ab")]
    rows = exchanged(own, other, ["a"])
    assert sorted((row.module, row.macs) for row in rows) == [("", 1), ("a", 2), ("a.b.c", 2), ("ab", 1)]


def test_without_residual_blocks_stages_of_the_model_are_taken_and_said():
    told = advise(find("test_convnext", options={"num_classes": 10}), (32, 32), names=("efficient", "local"))
    assert "in residual networks only" in told.place
    assert "local" in told.left_out
    assert {c.mechanism for c in told.candidates} == {"efficient"}


def test_named_sites_take_the_place_of_the_papers():
    told = advise(_plain(), (8, 8), names=("efficient", "se", "augmented"), sites=("1",))
    assert {(c.mechanism, c.sites) for c in told.candidates} == {("efficient", ("1",)), ("se", ("1",))}
    assert "no filters to split" in told.left_out["augmented"]


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"budgets": [parse_budget("latency=+10%")]}, OptionError, "needs the speeds of this machine"),
        ({"names": ["locl"]}, OptionError, "there is no mechanism 'locl'. Did you mean local"),
        ({"sites": ["nowhere.*"]}, NoMatchError, "nowhere"),
        ({"batch": 0}, OptionError, "--batch must be at least 1"),
        ({}, OptionError, "advise: no mechanism has a place in plain"),
    ],
)
def test_what_cannot_be_advised_is_told(options, kind, told):
    with pytest.raises(kind) as caught:
        advise(_plain(), (8, 8), **options)
    assert told in str(caught.value)


def test_models_are_measured_with_each_mechanism_beside_the_model_itself():
    rows = check_models(SPEEDS, _plain(), (8, 8), ("se", "augmented"), sites=("1",))
    assert [row.group for row in rows] == ["none", "se"]
    assert all(row.measured > 0 and row.error == row.predicted / row.measured - 1 for row in rows)
    assert median_error(rows) == pytest.approx(sum(abs(row.error) for row in rows) / 2)


def test_a_size_that_the_model_does_not_take_is_told():
    target = Target("tokens", lambda _: nn.Sequential(nn.Flatten(), nn.Linear(48, 4)), 3, (4, 4))
    with pytest.raises(ShapeError, match="advise: tokens does not take an input of 1 x 3 x 5 x 5"):
        advise(target, (5, 5))


def _plain():
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    return Target("plain", lambda _: nn.Sequential(*layers), 3, (8, 8))
