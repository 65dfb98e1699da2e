"""A call without contents sees the products and the memory that the same call has with contents."""

import pytest
import torch
from torch import nn

from foveal.analysis import count, peak_memory
from foveal.analysis.dry import dry_run

FLOAT = 4


class Chain(nn.Module):
    """Linear, exponential, product with itself: what each saves is known."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 7)
        self.second = nn.Linear(7, 3)

    def forward(self, x):
        return self.second(self.first(x).exp())


def test_saved_memory_of_a_chain_is_what_its_derivatives_need():
    ran = dry_run(Chain(), (11, 5), train=True)
    # first needs its input, exp its own result, which is also the input of second: held once.
    assert ran.saved_bytes[""] == FLOAT * (11 * 5 + 11 * 7)
    assert ran.saved_bytes["first"] == FLOAT * 11 * 5
    assert "second" not in ran.saved_bytes


def test_a_parameter_that_is_saved_is_no_activation():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1000))

        def forward(self, x):
            return x * self.weight

    assert dry_run(Scale(), (2, 1000), train=True).saved_bytes[""] == FLOAT * 2 * 1000


def test_views_of_one_storage_are_saved_once():
    class Views(nn.Module):
        def forward(self, x):
            y = nn.functional.pad(x, (1, 1))
            return y[:, :3] * y[:, 1:4] * y[:, 2:]

    padded, product = FLOAT * 2 * 5, FLOAT * 2 * 3
    model = nn.Sequential(nn.Linear(3, 3, bias=False), Views())
    assert dry_run(model, (2, 3), train=True).saved_bytes["1"] == padded + product


def test_backward_products_are_charged_to_the_module_of_the_forward():
    ran = dry_run(Chain(), (11, 5), train=True)
    # The input needs no gradient, so the first has only that of its weight.
    assert ran.backward_macs == {"": 11 * (5 * 7 + 2 * 7 * 3), "first": 11 * 5 * 7, "second": 2 * 11 * 7 * 3}


def test_a_list_of_modules_has_what_its_members_have():
    class Looped(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            for block in self.blocks:
                x = block(x).relu()
            return x

    ran = dry_run(Looped(), (2, 4), train=True)
    assert ran.macs["blocks"] == ran.macs[""] == 3 * 2 * 4 * 4
    assert ran.saved_bytes["blocks"] < ran.saved_bytes[""]


def test_a_module_that_runs_twice_counts_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.same = nn.Linear(4, 4)

        def forward(self, x):
            return self.same(self.same(x))

    ran = dry_run(Twice(), (2, 4), train=True)
    assert ran.macs["same"] == 2 * 2 * 4 * 4
    assert ran.backward_macs["same"] == 3 * 2 * 4 * 4
    assert ran.inputs["same"] == [(2, 4), (2, 4)]


def test_a_module_with_an_input_that_needs_no_gradient_trains():
    class Inner(nn.Module):
        def forward(self, x, extra):
            return x * extra.detach() + extra

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.inner, self.last = nn.Parameter(torch.zeros(1, 4)), Inner(), nn.Linear(4, 2)

        def forward(self, x):
            return self.last(self.inner(x, self.token.expand(len(x), -1)))

    assert dry_run(Outer(), (3, 4), train=True).backward_macs[""] == 2 * 3 * 4 * 2


def test_the_highest_memory_is_that_of_a_call_with_contents():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 25, 2)).eval()
    x = torch.randn(4, 3, 5, 5)

    def call():
        with torch.no_grad():
            return model(x)

    ran = dry_run(model, (4, 3, 5, 5))
    assert ran.peak_bytes[""] == 2 * FLOAT * 4 * 8 * 25
    assert ran.peak_bytes["3"] == FLOAT * (4 * 8 * 25 + 4 * 2)
    assert ran.peak_bytes[""] <= peak_memory(call) <= ran.peak_bytes[""] + 4096


def test_the_count_is_that_of_count_and_the_model_stays_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert dry_run(model, (2, 3, 9, 11), train=True).macs[""] == count(model, (2, 3, 9, 11)).macs
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_an_operator_without_a_formula_is_named():
    @torch.library.custom_op("foveal_test::thrice", mutates_args=())
    def thrice(x: torch.Tensor) -> torch.Tensor:
        return x * 3

    thrice.register_fake(torch.empty_like)

    class Calls(nn.Module):
        def forward(self, x):
            return thrice(x)

    assert dry_run(Calls(), (2, 3)).uncounted == ("foveal_test.thrice",)


def test_what_the_model_raises_comes_through():
    with pytest.raises(RuntimeError):
        dry_run(nn.Linear(3, 3), (2, 4))
