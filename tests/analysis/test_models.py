"""Measuring gives true figures and leaves no trace on what it measured."""

import copy
import json
import random
from dataclasses import asdict

import pytest
import torch
from torch import nn

from foveal.analysis import measure_models
from foveal.errors import OptionError, ShapeError


def network(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 10),
    )


@pytest.fixture(scope="module")
def measured():
    torch.manual_seed(0)
    models = {"narrow": network(4), "wide": network(64)}
    return measure_models(models, torch.randn(4, 3, 32, 32), seconds=0.2)


def test_parameters_and_operations_of_one_sample_are_exact(measured):
    assert measured["narrow"].parameters == 4 * 27 + 4 + 8 + 50
    assert measured["narrow"].macs == 32 * 32 * 27 * 4 + 4 * 10
    assert measured["wide"].macs == 32 * 32 * 27 * 64 + 64 * 10


def test_the_wider_network_takes_longer_and_more_memory(measured):
    narrow, wide = measured["narrow"], measured["wide"]
    assert narrow.inference_ms.ratio == narrow.training_ms.ratio == 1
    assert wide.inference_ms.ratio > 1.2
    assert wide.training_ms.median > wide.inference_ms.median
    assert wide.inference_peak_bytes > 4 * narrow.inference_peak_bytes


def test_memory_of_inference_is_at_least_two_maps_and_of_training_at_least_the_saved_ones(measured):
    one_map = 4 * 64 * 32 * 32 * 4
    assert 2 * one_map <= measured["wide"].inference_peak_bytes < 4 * one_map
    assert measured["wide"].training_peak_bytes > 4 * one_map


def test_a_record_goes_to_json_and_back(measured):
    record = asdict(measured["wide"])
    assert json.loads(json.dumps(record))["training_ms"]["q1"] == record["training_ms"]["q1"]


def test_models_gradients_and_random_states_are_left_untouched():
    model = network(4)
    model[3].eval()
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    before = copy.deepcopy(model.state_dict())
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    states = torch.get_rng_state(), random.getstate()
    example = torch.randn(2, 3, 8, 8)
    untouched = example.clone()
    torch.set_rng_state(states[0])
    with torch.no_grad():
        measure_models({"model": model}, example, seconds=0.02)
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert torch.equal(example, untouched)
    assert [module.training for module in model] == [True, True, True, False, True, True, True]


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return {"logits": self.linear(x)}


def test_an_output_of_another_kind_needs_a_loss():
    with pytest.raises(OptionError, match=r"^measure_models: the model's output is a dict, not a tensor"):
        measure_models({"named": Named()}, torch.randn(2, 3), seconds=0.02)
    loss = measure_models({"named": Named()}, torch.randn(2, 3), seconds=0.02, loss=lambda o: o["logits"].sum())
    assert loss["named"].macs == 9


def test_nothing_to_measure_an_empty_example_and_a_frozen_model_are_refused():
    with pytest.raises(OptionError, match=r"^measure_models: there is nothing to measure"):
        measure_models({}, torch.randn(1, 3))
    with pytest.raises(ShapeError, match=r"got shape \(0, 3\)"):
        measure_models({"a": nn.Linear(3, 3)}, torch.randn(0, 3))
    with pytest.raises(OptionError, match="Linear has no parameter to train"):
        measure_models({"a": nn.Linear(3, 3).requires_grad_(False)}, torch.randn(1, 3))
