"""Which parameters decay, at which rate they learn, and that the steps are torch's."""

import pytest
import timm
import torch
from torch import nn

import foveal.models  # noqa: F401  registers its networks
from foveal.models.mechanisms import with_attention
from foveal.tasks.optimizers import groups, optimizer
from foveal.tasks.recipe import OptimizerOptions


def decays(model, **options):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    made = groups(model, OptimizerOptions(decay=0.05, **options))
    return {names[id(p)]: (group["weight_decay"], group["lr"]) for group in made for p in group["params"]}


@pytest.mark.parametrize("mechanism", ["none", "local", "explicit", "augmented", "external", "efficient"])
def test_norms_biases_relative_tables_and_radii_never_decay(mechanism):
    model = timm.create_model("foveal_resnet_mini")
    with_attention(model, mechanism)
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for name, (decay, _) in decays(model).items():
        spared = name.rpartition(".")[0] in norms or name.endswith(".bias") or "relative" in name or "radius" in name
        assert (decay == 0) == (spared or model.get_parameter(name).dim() == 1), name
    if mechanism in ("local", "augmented"):
        assert any("relative" in name for name in decays(model))
    if mechanism == "explicit":
        assert any("radius" in name for name in decays(model))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "foveal_eamlp_7"])
def test_what_a_model_names_itself_never_decays(name):
    model = timm.create_model(name)
    own = model.no_weight_decay() & set(dict(model.named_parameters()))
    assert own
    assert {decays(model)[key][0] for key in own} == {0.0}
    assert decays(model)["head.weight"][0] == 0.05


def test_a_model_inside_another_still_names_what_never_decays():
    inner = nn.Module()
    inner.table = nn.Parameter(torch.zeros(3, 3))
    inner.no_weight_decay = lambda: {"table"}
    assert decays(nn.Sequential(nn.Linear(2, 2), inner))["1.table"][0] == 0.0


def test_biases_alone_take_the_factor_on_the_rate():
    told = decays(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), lr=0.1, bias_lr=2.0)
    assert told == {"0.weight": (0.05, 0.1), "0.bias": (0, 0.2), "1.weight": (0, 0.1), "1.bias": (0, 0.2)}


def test_frozen_parameters_are_in_no_group():
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    assert list(decays(model)) == ["weight"]


@pytest.mark.parametrize(
    ("options", "reference"),
    [
        (OptimizerOptions("sgd", lr=0.1, decay=0.01, nesterov=True), "sgd"),
        (OptimizerOptions("adamw", lr=0.1, decay=0.01, betas=(0.8, 0.99)), "adamw"),
        (OptimizerOptions("adam", lr=0.1, decay=0.01), "adam"),
    ],
)
def test_three_steps_are_those_of_the_written_rule(options, reference):
    torch.manual_seed(0)
    model = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    w, gradients = model.weight.detach().clone(), torch.randn(3, 1, 3, dtype=torch.float64)
    rule, first, second = optimizer(model, options), torch.zeros_like(w), torch.zeros_like(w)
    beta, gamma = options.betas
    for n, given in enumerate(gradients, 1):
        model.weight.grad = given.clone()
        rule.step()
        g = given if reference == "adamw" else given + 0.01 * w
        if reference == "sgd":
            first = g if n == 1 else 0.9 * first + g
            w = w - 0.1 * (g + 0.9 * first)
            continue
        first, second = beta * first + (1 - beta) * g, gamma * second + (1 - gamma) * g**2
        w = w * (1 - 0.1 * 0.01) if reference == "adamw" else w
        w = w - 0.1 * (first / (1 - beta**n)) / ((second / (1 - gamma**n)).sqrt() + 1e-8)
    torch.testing.assert_close(model.weight.detach(), w, rtol=1e-10, atol=1e-12)
