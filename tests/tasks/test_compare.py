"""The comparison from end to end, small: what it leaves, and how it goes on."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch

from foveal.data import load
from foveal.errors import DataError, OptionError
from foveal.tasks import looks, runs
from foveal.tasks.compare import compare
from foveal.tasks.jobs import Where
from foveal.tasks.out_folder import alone_in
from foveal.tasks.settings import Settings
from foveal.tasks.subject import Subject
from foveal.tasks.watch import Silent

ASKED = {"mechanisms": "none,cbam,efficient", "epochs": 1, "seeds": 2, "batch_size": 256}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "out"
    return out, compare("digits", out=out, **ASKED)


def test_there_is_one_record_a_mechanism_and_seed_with_everything_in_it(done):
    out, results = done
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(results))
    records = results["records"]
    names = ("none", "cbam", "efficient")
    assert [(r["mechanism"], r["seed"]) for r in records] == [(name, seed) for seed in (0, 1) for name in names]
    for record in records:
        assert record["status"] == "done"
        assert 0 <= record["accuracy"] <= 1
        assert record["parameters"] > 0
        assert record["macs"] > 0
        assert record["inference_ms"]["median"] > 0
        assert record["training_peak_bytes"] > record["inference_peak_bytes"] > 0
        assert record["environment"]["packages"]["torch"]
    assert records[0]["sites"] == []
    assert records[1]["sites"] == ["layer1.0.bn3", "layer2.0.bn3", "layer3.0.bn3"]
    assert results["data"]["val"] == 355


def test_the_report_opens_offline(done):
    text = (done[0] / "report.html").read_text()
    assert "<html" in text
    assert "efficient" in text
    assert 'src="http' not in text


def test_the_same_command_draws_the_report_again_and_nothing_else(done, monkeypatch):
    out, results = done
    (out / "report.html").unlink()
    monkeypatch.setattr(runs, "run", None)
    monkeypatch.setattr("foveal.tasks.compare.measure", None)
    assert compare("digits", out=out, **ASKED) == json.loads(json.dumps(results))
    assert (out / "report.html").exists()


def test_another_comparison_is_kept_out_with_what_differs(done):
    with pytest.raises(OptionError, match=r"holds another comparison: its epochs is 1, asked for is 2"):
        compare("digits", out=done[0], **{**ASKED, "epochs": 2})


def test_a_folder_in_use_is_kept_out(done):
    with alone_in(done[0]), pytest.raises(OptionError, match="another process works in"):
        compare("digits", out=done[0], **ASKED)


def test_a_folder_with_other_things_is_kept_out(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OptionError, match="is not empty and holds no comparison"):
        compare("digits", out=tmp_path, **ASKED)


def test_what_does_not_fit_is_said_before_anything_is_written(tmp_path):
    out = tmp_path / "new"
    with pytest.raises(OptionError, match=r"no model 'resnet18s'"):
        compare("digits", out=out, backbone="resnet18s", **ASKED)
    with pytest.raises(Exception, match="layer9"):
        compare("digits", out=out, sites="layer9", **ASKED)
    with pytest.raises(OptionError, match="--jobs must be at least 1"):
        compare("digits", out=out, jobs=0, **ASKED)
    assert not out.exists()


def test_an_out_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written: .*Use another folder for --out"):
        compare("digits", out=tmp_path / "file" / "out", **ASKED)


def test_a_run_that_fails_is_recorded_and_the_others_go_on(tmp_path, monkeypatch):
    def diverge(task, plan, folder, *, watch):
        task.build()
        if plan.seed == 0:
            raise runs.DivergedError("fit: loss became nan.")
        return {"accuracy": 0.5, "loss": 1.0, "train_seconds": 1.0}

    monkeypatch.setattr(runs, "fit", diverge)
    monkeypatch.setattr("foveal.tasks.compare.draw", lambda *_: None)
    results = compare("digits", out=tmp_path / "out", mechanisms="none", epochs=1, seeds=2)
    assert [record["status"] for record in results["records"]] == ["failed", "done"]
    assert results["records"][0]["reason"] == "DivergedError: fit: loss became nan."


def test_runs_in_processes_equal_runs_in_turn(done, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    settings = Settings(mechanisms=("none",), epochs=1, seeds=2, batch_size=256)
    try:
        records = runs.run_all(Subject(settings, load("digits")), tmp_path, Where(2), Silent())
    finally:
        torch.set_num_threads(threads)
    alone = [record["loss"] for record in done[1]["records"] if record["mechanism"] == "none"]
    assert [record["loss"] for record in records] == pytest.approx(alone, rel=1e-3)


def test_weights_start_every_mechanism_from_the_same_outputs(done, tmp_path):
    path = tmp_path / "w.safetensors"
    plain = safetensors.torch.load_file(done[0] / "runs" / "none-0" / "checkpoints" / "last" / "model.safetensors")
    safetensors.torch.save_file(plain, path)
    subject = Subject(Settings(weights=str(path)), load("digits"))
    outputs = [subject.model(name)[0].eval()(subject.example(4)) for name in ("none", "cbam", "nonlocal", "efficient")]
    assert all(torch.equal(outputs[0], other) for other in outputs[1:])
    assert subject.lr < 1e-3


def test_a_mechanism_starts_from_the_backbone_that_the_others_have(done):
    stems = []
    for name in ("none", "se", "explicit"):
        torch.manual_seed(5)
        stems.append(Subject(Settings(), load("digits")).model(name)[0].conv1.weight)
    assert all(torch.equal(stems[0], other) for other in stems[1:])


def test_maps_have_the_place_and_shape_that_they_say(done):
    subject = Subject(Settings(), load("digits"))
    made = {name: subject.model(name)[0].eval() for name in ("none", "se", "cbam", "local", "augmented", "external")}
    told = looks.looks({name: (lambda m=model: m) for name, model in made.items()}, subject.data)
    assert len(told) == looks.SAMPLES
    assert {look["label"] for look in told} == {"0", "1", "2", "3", "4", "5"}
    for look in told:
        assert look["image"].shape == (8, 8)
        assert all(0 <= p < 8 for p in look["point"])
        maps = look["maps"]
        assert maps["none"]["attention"] is None
        assert maps["se"]["attention"] is None
        # The last layer with eight rows and columns, or with the most that there are.
        assert maps["cbam"]["where"].startswith("layer1.0.bn3.")
        assert maps["local"]["where"] == "layer2.0.conv2"
        for name in ("cbam", "local", "augmented", "external"):
            assert maps[name]["attention"].shape == (8, 8)
            assert (maps[name]["attention"] >= 0).all()
        assert all(seen["evidence"].shape == (4, 4) for seen in maps.values())
        assert all(np.isfinite(seen["evidence"]).all() and seen["evidence"].max() <= 1 for seen in maps.values())
        # Of layer1, whose positions are the pixels.
        assert maps["augmented"]["attention"].sum() == pytest.approx(1, abs=1e-4)
