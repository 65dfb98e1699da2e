import subprocess
import sys

import pytest
import torch
from torch import nn

from foveal.errors import OptionError
from foveal.graft import augment_, insert_, replace_

from .dummies import Mean, Net, assert_same, states

X = torch.rand(1, 3, 8, 6, generator=torch.Generator().manual_seed(3))


def test_undoing_every_verb_in_turn_restores_the_very_same_model():
    model = Net()
    model.layer1.eval()
    before = states(model)
    grafts = [
        insert_(model, ["layer1", "layer1.0", "layer2.0.conv1"], Mean, identity=True, example=X),
        insert_(model, "layer1.0", Mean, example=X),
        replace_(model, "layer*.*.conv2", Mean, example=X),
        augment_(model, "layer1.*.conv1", Mean, ratio=0.5, example=X),
    ]
    for graft in reversed(grafts):
        graft.undo()
    assert_same(before, states(model), random_state=False)


def test_a_graft_under_another_cannot_be_undone_first():
    model = Net()

    def put(verb, where, layer=Mean, **options):
        return lambda: verb(model, where, layer, example=X, **options)

    for first, second in [
        (put(replace_, "layer1.0.conv2"), put(insert_, "layer1.0.conv2.value")),
        (put(insert_, "layer1.0"), put(insert_, "layer1.0")),
        (put(insert_, "layer1.0"), put(replace_, "layer1", lambda site: Mean(3, 16))),
        (put(augment_, "layer1.0.conv1", ratio=0.5), put(replace_, "layer1.0.conv1")),
    ]:
        below, above = first(), second()
        before = states(model)
        with pytest.raises(OptionError, match="Undo the later graft first"):
            below.undo()
        assert_same(before, states(model))
        above.undo()
        below.undo()


def test_undoing_twice_is_an_error():
    graft = insert_(Net(), "layer1", Mean, example=X)
    graft.undo()
    with pytest.raises(OptionError, match="was undone before"):
        graft.undo()


def test_a_graft_can_last_for_one_block():
    model = Net().eval()
    before = model(X)
    with replace_(model, "layer1.0.conv2", Mean, example=X) as graft:
        assert model.layer1[0].conv2 is graft.layers["layer1.0.conv2"]
    assert torch.equal(model(X), before)


def test_what_was_put_back_follows_the_mode_and_dtype_of_the_model():
    model = Net()
    graft = replace_(model, "layer1", lambda site: Mean(3, 16), example=X)
    model.double().eval()
    graft.undo()
    assert not any(module.training for module in model.modules())
    model(X.double())


def test_replacing_what_carries_an_inserted_layer_is_refused():
    model = Net()
    insert_(model, "layer1.0.conv2", Mean, example=X)
    with pytest.raises(ValueError, match="a layer was inserted after it and would be lost"):
        replace_(model, "layer1.0.conv2", Mean, example=X)


def test_only_the_new_parts_train_after_freezing_the_rest():
    model = Net()
    model.head.requires_grad_(False)
    flags = [p.requires_grad for p in model.parameters()]
    graft = augment_(model, "layer1.0.conv1", Mean, ratio=0.5, example=X)
    graft.freeze_rest_()
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(graft.new)
    graft.undo()
    assert [p.requires_grad for p in model.parameters()] == flags


def test_the_printed_record_tells_sites_costs_and_keys():
    model = Net()
    graft = replace_(model, "layer2.0.conv1", Mean, example=X)
    lines = str(graft).splitlines()
    assert lines[0] == "replace_: MACs for an input of 1x3x8x6"
    row = next(line for line in lines if "layer2.0.conv1" in line)
    for told in ("Conv2d", "Mean", "16", "8x6", "3.48 k → 408", "41.5 k → 4.61 k"):
        assert told in row
    assert lines[-1].strip() == "state dict: 2 new, 24 kept, 0 moved, 2 dropped"
    graft.undo()
    assert "(undone)" in str(graft)
    assert repr(graft) == "Graft(replace_, 1 sites, 2 new keys, undone)"


def test_the_counted_multiply_adds_are_those_of_the_layers():
    model = Net()
    whole = insert_(model, "layer1", Mean, example=X)
    assert whole.total.macs_after - whole.total.macs_before == 16 * 16 * 48
    assert whole.total.parameters_after - whole.total.parameters_before == 16 * 16 + 16
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1))
    row = replace_(model, "0", Mean, example=X).rows[0]
    assert (row.macs_before, row.macs_after) == (3 * 8 * 9 * 48, 3 * 8 * 48)


def test_grafting_imports_torch_alone():
    code = "import sys, foveal.graft; print(sorted({'timm', 'torchvision', 'rich', 'PIL'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "[]"
