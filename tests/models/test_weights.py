"""A saved model comes back from its file alone, and a file that could not come back is not written."""

import json
import os
import re
import struct
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import nn
from torch.nn.utils import prune

import foveal
from foveal.errors import DataError, OptionError
from foveal.models import Configuration, HubModel, load, save, with_attention
from foveal.models.catalog import CATALOG

MINI = "foveal_resnet_mini"
SMALL_LAST = sorted(CATALOG.values(), key=lambda row: -row.parameters)


class Trap:
    def __reduce__(self):
        return (print, ("this was run",))


def mini(**options):
    return timm.create_model(MINI, **{"num_classes": 3, **options})


def same(one, two):
    one, two = one.state_dict(), two.state_dict()
    assert one.keys() == two.keys()
    return all(one[key].dtype == two[key].dtype and torch.equal(one[key], two[key]) for key in one)


def header(path):
    data = path.read_bytes()
    return json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (MINI, {"num_classes": 3, "in_chans": 1}),
        ("foveal_eamlp_7", {"width": 32, "depth": 2, "num_classes": 3, "img_size": (48, 65)}),
        ("resnet18.a1_in1k", {"num_classes": 3, "drop_path_rate": 0.1}),
        ("vit_tiny_patch16_224", {"img_size": (32, 48), "num_classes": 3, "dynamic_img_size": True}),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 4, "depths": (1, 1, 1, 1), "num_classes": 0}),
        ("resnet18", {"features_only": True, "out_indices": (1, 2)}),
        ("foveal_eamlp_7", {"width": 32, "depth": 3, "features_only": True}),
        ("deit_tiny_distilled_patch16_224", {"num_classes": 2}),
        ("efficientnet_lite0", {"num_classes": 4}),
    ],
)
def test_a_model_comes_back_from_its_file_alone(tmp_path, name, options):
    model, path = timm.create_model(name, **options).eval(), tmp_path / "m.safetensors"
    x = torch.randn(2, options.get("in_chans", 3), *((32, 48) if "vit" in name else (64, 64)))
    if "deit" in name:
        x = torch.randn(2, 3, 224, 224)
    before = torch.get_rng_state()
    save(model, path)
    assert torch.equal(torch.get_rng_state(), before)
    again = load(path)
    assert type(again) is type(model) and not again.training
    assert same(model, again)
    assert again.default_cfg == {
        k: v for k, v in model.default_cfg.items() if k not in ("url", "hf_hub_id", "hf_hub_filename")
    }
    with torch.no_grad():
        torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", {row.build: row.name for row in SMALL_LAST}.values())
def test_the_smallest_of_every_kind_of_registered_model_can_be_made_again(name):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=2)
    made = Configuration.parse(Configuration.of(model).text(), "here")
    assert made.model == name and made.options["num_classes"] == 2


def test_the_file_says_what_it_holds(tmp_path):
    path = tmp_path / "m.safetensors"
    save(mini(), path, epochs=3, classes=["cat", "dog", "eel"])
    told = json.loads(header(path)["foveal"])
    assert (told["architecture"], told["foveal"], told["num_classes"]) == (MINI, foveal.__version__, 3)
    made = Configuration.read(path)
    assert made.metadata == {"epochs": 3, "classes": ("cat", "dog", "eel")}
    assert made.foveal == foveal.__version__
    assert made.options == {"num_classes": 3}


def test_a_head_that_was_made_anew_comes_back(tmp_path):
    model = mini()
    model.reset_classifier(7)
    save(model, tmp_path / "m.safetensors")
    assert same(load(tmp_path / "m.safetensors"), model)


def test_a_head_for_other_classes_stays_new_only_where_it_is_asked_for(tmp_path):
    model, path = mini(), tmp_path / "m.safetensors"
    save(model, path)
    other = load(path, num_classes=5)
    assert other.fc.weight.shape[0] == 5 and torch.equal(other.conv1.weight, model.conv1.weight)
    assert same(load(path, num_classes=3), model)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(
        DataError, match=r"does not fit foveal_resnet_mini; .*: 2 of another shape \(fc.weight \(3, 128"
    ):
        load(tmp_path / "w.safetensors", name=MINI)
    assert same(load(tmp_path / "w.safetensors", name=MINI, num_classes=3), model)


def test_options_override_those_of_the_file_and_weights_that_no_longer_fit_are_named(tmp_path):
    path = tmp_path / "m.safetensors"
    save(mini(), path)
    assert load(path, drop_rate=0.5).drop_rate == 0.5
    told = (
        r"m.safetensors does not fit foveal_resnet_mini; .* 1 of another shape \(conv1.weight \(32, 3, 3, 3\) instead"
    )
    with pytest.raises(DataError, match=told):
        load(path, in_chans=1)
    with pytest.raises(OptionError, match=r"^load: foveal_resnet_mini cannot be made with .*'no_such': 1.*: "):
        load(path, no_such=1)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_types_come_back_and_a_new_head_has_that_of_the_rest(tmp_path, kind):
    model, path = mini().to(kind), tmp_path / "m.safetensors"
    save(model, path)
    assert same(load(path), model)
    for options in ({"num_classes": 5}, {}):
        assert {p.dtype for p in load(path, **options).parameters()} == {kind}
    model.reset_classifier(0)
    save(model, path)
    assert load(path, num_classes=5).fc.weight.dtype == kind


def test_tensors_that_share_memory_or_have_strides_of_their_own_come_back(tmp_path):
    model, path = mini(), tmp_path / "m.safetensors"
    model.layer2[0].bn1.weight = model.layer2[0].bn2.weight
    model.fc.weight.data = torch.randn(128, 3).T
    model.to(memory_format=torch.channels_last)
    save(model, path)
    again = load(path)
    assert same(again, model)
    assert again.fc.weight.is_contiguous()


def test_weights_tied_in_the_model_itself_stay_tied(tmp_path):
    class Tied(nn.Module):
        num_classes = 2

        def __init__(self, **options):
            super().__init__()
            self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)
            self.two.weight = self.one.weight

    made = Configuration(MINI)
    model, path = Tied(), tmp_path / "m.safetensors"
    model.default_cfg, model._model_args = {"architecture": "foveal_tied_for_a_test"}, {}

    @timm.models.register_model
    def foveal_tied_for_a_test(pretrained=False, **options):
        return Tied()

    try:
        save(model.bfloat16(), path)
        again = load(path)
    finally:
        timm.models._registry._model_entrypoints.pop("foveal_tied_for_a_test")
    assert again.two.weight is again.one.weight and same(again, model)
    assert made.build().num_classes == 1000


def test_what_wraps_a_model_is_left_out_of_the_file(tmp_path):
    model, path = mini(), tmp_path / "m.safetensors"
    save(torch.compile(nn.DataParallel(model)), path)
    assert same(load(path), model)


def test_values_that_are_no_numbers_come_back_from_a_saved_model_and_from_nowhere_else(tmp_path):
    model, path = mini(), tmp_path / "m.safetensors"
    with torch.no_grad():
        model.fc.bias[0] = float("nan")
    save(model, path)
    assert load(path).fc.bias.isnan().tolist() == [True, False, False]
    safetensors.torch.save_file(model.state_dict(), path)
    with pytest.raises(DataError, match=r"^weights: fc.bias of .* holds values that are NaN"):
        load(path, name=MINI, num_classes=3)


@pytest.mark.parametrize("mechanism", ["efficient", "local", "se"])
def test_a_model_that_was_grafted_is_refused_and_nothing_is_written(tmp_path, mechanism):
    model = mini()
    with_attention(model, mechanism, example=torch.zeros(1, 3, 8, 8))
    told = (
        r"^save: this foveal_resnet_mini was changed after timm made it, in \d+ places, first layer\S+ \(.*\), so no "
        r"file could make it again. Save its state dict and load that into a model made the same way, or register the"
    )
    with pytest.raises(OptionError, match=told):
        save(model, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", ["stride", "activation", "buffer", "class", "prune"])
def test_any_other_change_is_refused_too(tmp_path, change):
    model = mini()
    if change == "stride":
        model.layer2[0].conv2.stride = (1, 1)
    elif change == "activation":
        model.layer1[0].act1 = nn.GELU()
    elif change == "buffer":
        model.register_buffer("mean", torch.zeros(3))
    elif change == "class":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    else:
        prune.l1_unstructured(model.fc, "weight", 0.5)
    with pytest.raises(OptionError, match=r"^save: this foveal_resnet_mini was changed after timm made it"):
        save(model, tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("make", "path", "told"),
    [
        (
            lambda: nn.Linear(2, 2),
            "m.safetensors",
            r"^save: timm.create_model .* did not make this Linear, so no file could",
        ),
        (mini, "m.pth", r"^save: models are written as safetensors, got .*m.pth. Use .*m.safetensors\."),
        (
            lambda: mini(act_layer=nn.LeakyReLU),
            "m.safetensors",
            r"^save: the option act_layer of foveal_resnet_mini is <class .*JSON",
        ),
        (lambda: mini().to("meta"), "m.safetensors", r"^save: conv1.weight of foveal_resnet_mini has no values"),
    ],
)
def test_what_no_file_could_hold_is_refused(tmp_path, make, path, told):
    with pytest.raises(OptionError, match=told):
        save(make(), tmp_path / path)
    assert not list(tmp_path.iterdir())


def test_metadata_that_json_lacks_is_refused(tmp_path):
    with pytest.raises(OptionError, match=r"^save: the metadata when is <object .*, which JSON cannot hold"):
        save(mini(), tmp_path / "m.safetensors", when=object())
    with pytest.raises(OptionError, match=r"^save: the metadata loss is nan"):
        save(mini(), tmp_path / "m.safetensors", loss=float("nan"))


def test_what_was_there_stays_whole_where_writing_fails(tmp_path, monkeypatch):
    model, path = mini(), tmp_path / "m.safetensors"
    save(model, path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"^save: 0.\d MB could not be written to .*: No space left on device. Use an"):
        save(mini(), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    with pytest.raises(DataError, match="could not be written to .*: No such file or directory"):
        save(model, tmp_path / "none" / "m.safetensors")


def test_weights_alone_need_the_name_of_their_model_and_saved_models_none(tmp_path):
    model, path = mini(), tmp_path / "w.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    with pytest.raises(OptionError, match=r"^load: .*w.safetensors holds weights but not which model they belong to"):
        load(path)
    with pytest.raises(OptionError, match=r"^load: timm has no model 'resnet_mini'. Did you mean .*foveal_resnet_mini"):
        load(path, name="resnet_mini")
    save(model, path)
    assert same(load(path, name=MINI), model)
    with pytest.raises(OptionError, match=r"^load: .* holds a foveal_resnet_mini, not a resnet18. Leave out the name"):
        load(path, name="resnet18")


def test_code_in_a_file_runs_only_where_the_file_is_trusted(tmp_path, capsys):
    model, path = mini(), tmp_path / "w.pth"
    torch.save({"state_dict": model.state_dict(), "x": Trap()}, path)
    with pytest.raises(DataError, match=r"^weights: .* holds no tensors that can be read without running code from it"):
        load(path, name=MINI, num_classes=3)
    assert "this was run" not in capsys.readouterr().out
    assert same(load(path, name=MINI, num_classes=3, trusted=True), model)
    assert "this was run" in capsys.readouterr().out
    torch.save({"state_dict": model.state_dict()}, path)
    assert same(load(path, name=MINI, num_classes=3), model)


@pytest.mark.parametrize("kept", [0, 4, 100, 5000])
def test_part_of_a_file_is_called_so(tmp_path, kept):
    path = tmp_path / "m.safetensors"
    save(mini(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(
        DataError, match=rf"^weights: .*m.safetensors is {'damaged or truncated: ' if kept else 'empty'}"
    ):
        load(path)


@pytest.mark.parametrize("name", [MINI, None])
def test_a_file_that_is_not_there_is_called_so(tmp_path, name):
    for ending in ("safetensors", "pth"):
        with pytest.raises(
            DataError, match=r"^weights: .* cannot be read: No such file or directory. Give an existing"
        ):
            load(tmp_path / f"none.{ending}", name=name)
    with pytest.raises(DataError, match=r"^weights: .* cannot be read: Is a directory. Give an existing file"):
        load(tmp_path, name=name)


@pytest.mark.parametrize("text", ["{", "[]", '{"foveal": "9"}', "null"])
def test_a_damaged_configuration_is_called_so(tmp_path, text):
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file(mini().state_dict(), path, {"foveal": text})
    with pytest.raises(DataError, match=r"^load: the configuration in .*m.safetensors is damaged"):
        load(path)


@pytest.mark.parametrize("change", [{"model_args": {"checkpoint_path": "w.pth"}}, {"architecture": 3}])
def test_a_file_cannot_point_to_other_files(tmp_path, change):
    path = tmp_path / "m.safetensors"
    told = json.loads(Configuration.of(mini()).text()) | change
    safetensors.torch.save_file(mini().state_dict(), path, {"foveal": json.dumps(told)})
    with pytest.raises(DataError, match=r"^load: the configuration in .* is damaged: .*it would make"):
        load(path)


@pytest.mark.parametrize("name", ["hf-hub:me/mine", "local-dir:.", "./m"])
def test_a_file_cannot_lead_to_the_hub_or_to_folders(tmp_path, name):
    path = tmp_path / "m.safetensors"
    told = json.loads(Configuration.of(mini()).text()) | {"architecture": name}
    safetensors.torch.save_file(mini().state_dict(), path, {"foveal": json.dumps(told)})
    with pytest.raises(OptionError, match=rf"^load: timm has no model '{name}'"):
        load(path)


def test_a_file_of_a_newer_foveal_is_refused_by_its_version(tmp_path):
    path = tmp_path / "m.safetensors"
    told = json.loads(Configuration.of(mini()).text()) | {"foveal": "9.1", "format": 2}
    safetensors.torch.save_file(mini().state_dict(), path, {"foveal": json.dumps(told)})
    with pytest.raises(
        DataError, match=r"was written by foveal 9.1 in format 2, this one reads format 1. Install that"
    ):
        load(path)


def test_a_checkpoint_of_the_authors_of_eamlp_becomes_a_model(tmp_path):
    from models.test_eamlp import authors_state, close, reference

    state, x = authors_state(32, 2, 5, 2.0, 48), torch.randn(2, 3, 48, 48)
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, tmp_path / "w.pth")
    model = load(tmp_path / "w.pth", name="foveal_eamlp_7", width=32, depth=2, num_classes=5)
    close(model(x), reference(state, x, 2))
    del state["blocks.1.attn.proj.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(
        DataError, match=r"does not fit foveal_eamlp_7; .*: 1 missing \(blocks.1.attention.output.weight\)"
    ):
        load(tmp_path / "w.pth", name="foveal_eamlp_7", width=32, depth=2, num_classes=5)


def test_a_folder_for_the_hub_is_read_by_us_by_the_hub_and_by_timm(tmp_path):
    model, x = mini(in_chans=1).eval(), torch.randn(2, 1, 8, 8)
    hub = HubModel(model, {"epochs": 3})
    assert hub.state_dict().keys() == model.state_dict().keys()
    hub.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    again = HubModel.from_pretrained(tmp_path)
    assert not again.training and again.metadata == {"epochs": 3}
    for other in (
        again.model,
        load(tmp_path / "model.safetensors"),
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True),
    ):
        assert same(other, model)
        assert torch.equal(other.eval()(x), model(x))
    assert torch.equal(again(x), model(x))
    assert HubModel.from_pretrained(tmp_path, num_classes=9).model.fc.weight.shape[0] == 9
    hub.load_state_dict(mini(in_chans=1).state_dict())
    assert not same(hub.model, again.model)
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(
        header(tmp_path / "model.safetensors")["foveal"]
    )


def test_what_is_pushed_to_the_hub_is_that_folder(tmp_path, monkeypatch):
    import huggingface_hub.hub_mixin as mixin

    sent = {}

    class Api:
        def __init__(self, token=None):
            sent["token"] = token

        def create_repo(self, repo_id, **options):
            return type("Repo", (), {"repo_id": repo_id})

        def upload_folder(self, *, repo_id, folder_path, **options):
            sent.update({path.name: path.read_bytes() for path in folder_path.iterdir()}, repo_id=repo_id)
            return "https://there"

    monkeypatch.setattr(mixin, "HfApi", Api)
    model = mini()
    assert HubModel(model).push_to_hub("me/mine", token="none") == "https://there"
    assert sent["repo_id"] == "me/mine" and "foveal" in sent["README.md"].decode()
    (tmp_path / "m.safetensors").write_bytes(sent["model.safetensors"])
    assert same(load(tmp_path / "m.safetensors"), model)


def test_what_is_fetched_from_the_hub_is_that_file(tmp_path, monkeypatch):
    import huggingface_hub.hub_mixin as mixin

    from foveal.models import hub

    model = mini()
    HubModel(model).save_pretrained(tmp_path)

    def fetch(repo_id, filename, **options):
        assert repo_id == "me/mine" or options["repo_id"] == "me/mine"
        return str(tmp_path / filename)

    monkeypatch.setattr(hub, "hf_hub_download", fetch)
    monkeypatch.setattr(mixin, "hf_hub_download", lambda **options: fetch(**options))
    assert same(HubModel.from_pretrained("me/mine").model, model)


def test_a_grafted_model_is_not_pushed_either(tmp_path):
    model = mini()
    with_attention(model, "se", example=torch.zeros(1, 3, 8, 8))
    with pytest.raises(OptionError, match="was changed after timm made it"):
        HubModel(model).save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_page_does_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page, names = (Path(__file__).parents[2] / "docs" / "weights.md").read_text(), {}
    for block in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(block, names)
    assert all(same(names[other], names["model"]) for other in ("same", "again", "timms"))
    assert names["told"].metadata == {"epochs": 15} and names["other"].num_classes == 5
