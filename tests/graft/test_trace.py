import pytest
import torch
from torch import nn

from foveal.errors import ShapeError
from foveal.graft.layout import Sites
from foveal.graft.trace import trace

from .dummies import Net, assert_same, states


def site(model, name, example=None):
    return Sites(trace("replace_", model, example)).through(name, model.get_submodule(name))


def test_a_trace_leaves_no_mark_on_the_model():
    model = Net()
    model.layer1.eval()
    before = states(model)
    trace("replace_", model, torch.zeros(2, 3, 9, 7))
    assert_same(before, states(model))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_an_input_is_guessed_from_the_first_convolution(dims):
    found = site(Net(dims), "layer2.0.conv1")
    assert (found.channels_in, found.channels_out, found.stride, found.size) == (16, 24, 2, (64,) * dims)
    assert (found.size_out, found.dims, found.layout) == ((32,) * dims, dims, "channels first")


def test_sizes_come_from_the_example():
    found = site(Net(), "layer2.0.conv1", torch.rand(1, 3, 9, 6))
    assert (found.size, found.size_out, found.stride) == ((9, 6), (5, 3), 2)


def test_an_example_that_does_not_run_is_an_error():
    with pytest.raises(ShapeError, match=r"replace_: the model does not run on the example \(1x4x8x8\)"):
        trace("replace_", Net(), torch.rand(1, 4, 8, 8))


@pytest.mark.parametrize("pack", [lambda x: x, lambda x: (x,), lambda x: {"x": x}, lambda x: [x]])
def test_an_empty_example_is_an_error(pack):
    told = r"replace_: example must hold at least one element .*, got an empty one \(.*0x3x8x8\). Pass a batch of one."
    with pytest.raises(ShapeError, match=told):
        trace("replace_", Net(), pack(torch.rand(0, 3, 8, 8)))


def test_a_tuple_holds_arguments_and_a_dict_named_ones():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x, *, y):
            return self.conv(x + y)

    x = torch.rand(1, 3, 5, 5)
    assert site(Two(), "conv", {"x": x, "y": x}).size == (5, 5)
    net = nn.Sequential(nn.Conv2d(3, 4, 1))
    assert site(net, "0", (x,)).size == (5, 5)


@pytest.mark.parametrize("guessable", [True, False])
def test_a_model_that_no_guess_fits_still_has_the_channels_of_its_convolutions(guessable):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, 2, 1)
            self.block = nn.Sequential(nn.ReLU())

        def forward(self, x, needed):
            return self.block(self.conv(x)) + needed

    found = site(Odd(), "conv")
    assert (found.channels_in, found.channels_out, found.stride, found.size, found.dims) == (3, 8, 2, None, 2)
    assert "pass example=" in site(Odd(), "block")


def test_tokens_and_maps_of_equal_rank_are_told_apart():
    tokens = nn.Sequential(nn.LayerNorm(6), nn.Identity(), nn.Linear(6, 8))
    maps = nn.Sequential(nn.BatchNorm1d(6), nn.Identity(), nn.Conv1d(6, 8, 1))
    found = site(tokens, "1", torch.rand(2, 5, 6))
    assert (found.layout, found.channels_in, found.size) == ("channels last", 6, (5,))
    found = site(maps, "1", torch.rand(2, 6, 5))
    assert (found.layout, found.channels_in, found.size) == ("channels first", 6, (5,))


def test_the_layout_holds_where_channels_equal_the_axes():
    tokens = nn.Sequential(nn.LayerNorm(6), nn.Identity())
    assert site(tokens, "1", torch.rand(2, 6, 6)).layout == "channels last"
    maps = nn.Sequential(nn.Conv2d(6, 6, 1), nn.Identity())
    assert site(maps, "1", torch.rand(2, 6, 6, 6)).layout == "channels first"


def test_a_tensor_that_nothing_explains_is_refused():
    class Raw(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, x):
            return self.inner(x)

    assert "nothing near it tells where the channels are" in site(Raw(), "inner", torch.rand(2, 5, 7))
