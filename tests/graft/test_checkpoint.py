import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

from foveal.graft import augment_, insert_, replace_

from .dummies import Mean, Net, Twice

X = torch.rand(1, 3, 9, 7, generator=torch.Generator().manual_seed(3))


def copied(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def insert(model):
    return insert_(model, "layer1", Mean, identity=True, example=X)


def replace(model):
    return replace_(model, "layer2.0.conv1", Mean, example=X)


def augment(model):
    return augment_(model, "layer1.*.conv1", Mean, ratio=0.5, example=X)


def replace_around(model):
    return replace_(model, "layer1", lambda site: Mean(3, 16), example=X)


STEPS = [insert, replace, augment, replace_around]


@pytest.mark.parametrize("graft", STEPS)
def test_a_state_dict_from_before_a_graft_loads_and_the_warning_names_what_is_new(graft):
    other, model = Net(), Net()
    old = copied(other)
    record = graft(model)
    start = copied(model)
    with pytest.warns(UserWarning, match="before a graft: ") as told:
        result = model.load_state_dict(old, strict=True)
    assert not result.missing_keys
    text = str(told[0].message)
    assert f"{len(record.new)} keys keep their initial values" in text
    assert all(key in text for key in (*record.new, *record.dropped, *record.moved))
    now = model.state_dict()
    assert all(torch.equal(now[key], start[key]) for key in record.new)
    assert all(torch.equal(now[key], old[key]) for key in record.kept)
    assert all(torch.equal(now[new], old[key][: len(now[new])]) for key, new in record.moved.items())


@pytest.mark.parametrize("graft", STEPS)
def test_the_keys_of_a_record_are_all_keys(graft):
    model = Net()
    before = set(model.state_dict())
    record = graft(model)
    assert {*record.new, *record.kept, *record.moved.values()} == set(model.state_dict())
    assert {*record.dropped, *record.kept, *record.moved} == before


@pytest.mark.parametrize("graft", STEPS)
def test_a_new_state_dict_loads_strictly_and_silently(graft):
    model, other = Net(), Net()
    graft(model)
    graft(other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other.load_state_dict(copied(model), strict=True)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in other.state_dict().items())


@pytest.mark.parametrize(
    "order", [(insert, replace, augment), (augment, insert, replace_around), (insert, augment, replace)]
)
def test_a_state_dict_from_any_step_of_several_grafts_loads(order):
    model, saved = Net(), []
    for graft in order:
        saved.append(copied(model))
        graft(model)
    model = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    for step, state in enumerate(saved):
        with pytest.warns(UserWarning, match="before a graft") as told:
            model.load_state_dict(state, strict=True)
        assert len(told) == len(order) - step
        kept = [key for key in model.state_dict() if key in state]
        assert kept
        assert all(torch.equal(model.state_dict()[key], state[key]) for key in kept)


@pytest.mark.parametrize(
    "drop", ["layer1.attention.scale", "layer1.attention.layer.value.bias", "layer2.0.conv2.weight"]
)
def test_a_partly_new_state_dict_is_an_error_as_always(drop):
    model = Net()
    insert(model)
    state = copied(model)
    del state[drop]
    with pytest.raises(RuntimeError, match=f"Missing key.*{drop}"):
        model.load_state_dict(state, strict=True)


def test_an_old_state_dict_loads_through_a_wrapper():
    model = nn.Sequential(Net(), nn.Identity())
    old = copied(model)
    insert(model[0])
    with pytest.warns(UserWarning, match="3 keys keep"):
        model.load_state_dict(old, strict=True)


def test_a_key_that_changes_its_meaning_is_new():
    class Bias(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(16))

        def forward(self, x):
            return x + self.bias.view(-1, 1, 1)

    model = Net()
    old = copied(model)
    record = replace_(model, "layer1.1.conv1", lambda site: Bias(), example=X)
    assert "layer1.1.conv1.bias" in record.new
    assert "layer1.1.conv1.bias" in record.dropped
    with pytest.warns(UserWarning, match="1 keys keep their initial values"):
        model.load_state_dict(old, strict=True)
    assert not model.layer1[1].conv1.bias.any()


def test_keys_of_a_shared_module_are_counted_under_every_name():
    model = Twice()
    old = copied(model)
    record = augment_(model, "first", Mean, channels=3, example=X)
    assert sorted(record.moved) == ["first.bias", "first.weight", "second.bias", "second.weight"]
    with pytest.warns(UserWarning, match="before a graft"):
        model.load_state_dict(old, strict=True)
    assert torch.equal(model.second.conv.weight, old["second.weight"][:5])


def test_an_augmented_convolution_takes_the_whole_weights_only_if_they_fit():
    model = Net()
    augment(model)
    whole = nn.Conv2d(3, 16, 3)
    part = model.layer1[0].conv1
    part.attention.channels_out = 8
    part.load_state_dict(
        {**whole.state_dict(), **{f"attention.{k}": v for k, v in part.attention.state_dict().items()}}
    )
    assert torch.equal(part.conv.weight, whole.weight[:8])
    with pytest.raises(RuntimeError, match="the layer 16"):
        part.load_state_dict(nn.Conv2d(3, 20, 3).state_dict(), strict=False)
