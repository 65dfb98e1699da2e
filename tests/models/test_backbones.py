"""Backbones by name, and weights that are read without running what is in them."""

import argparse

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
    told = (
        r"^weights: w does not fit foveal_resnet_mini; of its 74 tensors and 74 in the file: 1 of another shape "
        r"\(conv1.weight \(32, 1, 3, 3\) instead of \(32, 3, 3, 3\)\). Use the model that it was made with."
    )
    with pytest.raises(DataError, match=told):
        load_weights_(model, state, "w")


def test_weights_of_a_deeper_backbone_are_refused_with_the_first_that_has_no_place():
    deeper, model = backbone("resnet34", classes=2).state_dict(), backbone("resnet18", classes=2)
    before = model.conv1.weight.clone()
    told = (
        r"^weights: r34.pth does not fit resnet18; of its 122 tensors and 218 in the file: 80 without a place "
        r"\(layer1.2.conv1.weight, layer1.2.bn1.weight, layer1.2.bn1.bias, …\). Use the model "
    )
    with pytest.raises(DataError, match=told):
        load_weights_(model, deeper, "r34.pth")
    assert torch.equal(model.conv1.weight, before)


def test_every_kind_of_difference_is_counted_and_named_in_one_sentence():
    model = backbone("foveal_resnet_mini", classes=2)
    state, before = model.state_dict(), model.conv1.weight.clone()
    state = {key: torch.zeros(2) if key.startswith("bn1.") else value for key, value in state.items()}
    state["stray"] = state.pop("conv1.weight")
    told = (
        r"1 missing \(conv1.weight\); 5 of another shape \(bn1.weight \(2,\) instead of \(32,\), bn1.bias .*, …\); "
        r"1 without a place \(stray\)\."
    )
    with pytest.raises(DataError, match=told):
        load_weights_(model, state, "w")
    assert torch.equal(model.conv1.weight, before)


def test_a_head_of_two_layers_stays_new_as_well():
    state = backbone("deit_tiny_distilled_patch16_224", classes=3).state_dict()
    other = backbone("deit_tiny_distilled_patch16_224", classes=2)
    assert len(load_weights_(other, state, "w")) == 4
    with pytest.raises(DataError, match=r"4 of another shape \(head.weight"):
        load_weights_(other, state, "w", new_head=False)


def test_settings_beside_the_weights_are_no_code(tmp_path):
    state = {"state_dict": {"a": torch.ones(2)}, "args": argparse.Namespace(lr=0.1)}
    torch.save(state, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").keys() == {"a"}


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


def test_what_is_trusted_is_unpickled_and_what_is_damaged_is_still_called_so(tmp_path, capsys):
    torch.save({"state_dict": {"weight": torch.zeros(1)}, "x": Trap()}, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth", trusted=True).keys() == {"weight"}
    assert "this was run" in capsys.readouterr().out
    torch.save(torch.nn.Linear(2, 3), tmp_path / "m.pth")
    assert read_weights(tmp_path / "m.pth", trusted=True).keys() == {"weight", "bias"}
    (tmp_path / "w.pth").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="is damaged or truncated"):
        read_weights(tmp_path / "w.pth", trusted=True)


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
