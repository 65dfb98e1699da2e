"""Backbones by name, and weights that are read without running what is in them."""

import pytest
import safetensors.torch
import torch

import foveal.models  # noqa: F401  registers ours
from foveal.errors import DataError, OptionError
from foveal.models.backbones import backbone, load_weights_, read_weights


class Trap:
    def __reduce__(self):
        return (print, ("this was run",))


def test_an_unknown_backbone_is_answered_with_the_nearest():
    with pytest.raises(OptionError, match=r"timm has no model 'resnet18x'. Did you mean resnet18"):
        backbone("resnet18x", classes=2)


@pytest.mark.parametrize("form", ["safetensors", "pth", "wrapped.pth"])
def test_weights_come_back_and_another_head_stays_new(tmp_path, form):
    made, path = backbone("foveal_resnet_mini", classes=7), tmp_path / f"w.{form}"
    state = made.state_dict()
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}} if "wrapped" in form else state, path)
    same, other = backbone("foveal_resnet_mini", classes=7), backbone("foveal_resnet_mini", classes=3)
    assert load_weights_(same, read_weights(path), "w") == []
    assert all(torch.equal(value, state[key]) for key, value in same.state_dict().items())
    assert load_weights_(other, read_weights(path), "w") == ["fc.weight", "fc.bias"]
    assert torch.equal(other.conv1.weight, made.conv1.weight)


def test_weights_of_another_backbone_are_refused_with_the_first_difference(tmp_path):
    state = backbone("foveal_resnet_mini", classes=2, channels=1).state_dict()
    model = backbone("foveal_resnet_mini", classes=2, channels=3)
    with pytest.raises(DataError, match=r"w does not fit SmallResNet: 1 of \d+ tensors differ, first conv1.weight"):
        load_weights_(model, state, "w")


def test_weights_of_a_deeper_backbone_are_refused_with_the_first_that_has_no_place():
    deeper, model = backbone("resnet34", classes=2).state_dict(), backbone("resnet18", classes=2)
    before = model.conv1.weight.clone()
    told = r"^weights: 80 tensors of r34.pth have no place in resnet18, first layer1.2.conv1.weight. Use the backbone "
    with pytest.raises(DataError, match=told):
        load_weights_(model, deeper, "r34.pth")
    assert torch.equal(model.conv1.weight, before)


def test_counters_that_a_backbone_lacks_are_no_reason_to_refuse_it():
    model = backbone("foveal_resnet_mini", classes=2)
    load_weights_(model, {**model.state_dict(), "bn9.num_batches_tracked": torch.tensor(1)}, "w")


@pytest.mark.parametrize("form", ["safetensors", "pth"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path, form, value):
    path, state = tmp_path / f"w.{form}", {"a": torch.ones(2), "b.weight": torch.tensor([1.0, value])}
    (safetensors.torch.save_file if form == "safetensors" else torch.save)(state, path)
    with pytest.raises(DataError, match=r"^weights: b.weight of .*w\.\w+ holds values that are NaN or infinite. Give"):
        read_weights(path)


@pytest.mark.parametrize("form", ["safetensors", "pth", "old.pth"])
@pytest.mark.parametrize("kept", [0, 0.01, 0.5, 0.999])
def test_part_of_a_file_is_called_so(tmp_path, form, kept):
    path, state = tmp_path / f"w.{form}", {"a": torch.ones(200)}
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "pth")
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(DataError, match=f"^weights: .* is {'damaged or truncated: ' if kept else 'empty'}"):
        read_weights(path)


def test_nothing_is_unpickled(tmp_path, capsys):
    torch.save({"weight": torch.zeros(1), "x": Trap()}, tmp_path / "w.pth")
    with pytest.raises(DataError, match="without running code"):
        read_weights(tmp_path / "w.pth")
    assert "this was run" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind" * 20])
def test_a_damaged_file_is_one_sentence(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"^weights: .*"):
        read_weights(tmp_path / name)


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "w.pth")
    with pytest.raises(DataError, match="no state dict of tensors"):
        read_weights(tmp_path / "w.pth")
    with pytest.raises(DataError, match="cannot be read"):
        read_weights(tmp_path / "none.safetensors")
