"""Checkpoints are whole or not there, damage is named, and the one before is used instead."""

import errno
import json
import random
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from foveal.errors import DataError
from foveal.tasks import checkpoint
from foveal.tasks.generators import generator_states, restore_generators


@pytest.fixture
def model():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).to(memory_format=torch.channels_last)


def save(folder, model, number, which="last"):
    with torch.no_grad():
        model[1].weight.fill_(float(number))
    checkpoint.save(folder, {"model": model.state_dict()}, {"n": number}, which)


def stands(folder):
    """Which save a folder gives back, by its state and by its weights."""
    saved = checkpoint.read(folder)
    number = saved.state()["n"]
    assert (saved.tensors("model")["1.weight"] == number).all()
    return number


def drawn():
    return random.random(), float(np.random.rand()), float(np.random.randn()), float(torch.rand(()))


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_weights_and_state_come_back(tmp_path, model):
    state = {"position": {"epoch": 3}, "odd": [1, 2.5, None, "x"]}
    checkpoint.save(tmp_path, {"model": model.state_dict()}, state)
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    nn.init.zeros_(model[0].weight)
    saved = checkpoint.read(tmp_path)
    saved.load_into("model", model)
    assert saved.state() == state
    assert all(torch.equal(value, kept[key]) for key, value in model.state_dict().items())


def test_every_generator_comes_back(tmp_path):
    np.random.randn()  # leaves half of a pair of normal numbers in the generator
    checkpoint.save(tmp_path, {}, generator_states())
    expected = drawn()
    assert drawn() != expected
    restore_generators(checkpoint.read(tmp_path).state())
    assert drawn() == expected


def test_there_is_none_before_the_first(tmp_path, model):
    assert checkpoint.read(tmp_path) is None
    with pytest.raises(DataError, match="holds none named last"):
        checkpoint.weights(tmp_path)
    save(tmp_path, model, 1)
    with pytest.raises(DataError, match="holds none named best"):
        checkpoint.weights(tmp_path, "best")


def test_the_average_is_what_a_run_evaluates(tmp_path):
    ones, twos = {"w": torch.ones(2)}, {"w": torch.full((2,), 2.0)}
    checkpoint.save(tmp_path, {"model": ones, "model.average": twos, "judge": ones}, {})
    assert checkpoint.weights(tmp_path)["w"].tolist() == [2, 2]
    assert checkpoint.weights(tmp_path, name="judge")["w"].tolist() == [1, 1]
    with pytest.raises(DataError, match=r"holds no 'maker'\. It holds judge, model, model\.average"):
        checkpoint.weights(tmp_path, name="maker")


def test_the_last_two_and_the_best_are_kept(tmp_path, model):
    for number in (1, 2, 3):
        save(tmp_path, model, number)
    save(tmp_path, model, 4, "best")
    assert names(tmp_path) == ["before", "best", "last"]
    assert stands(tmp_path) == 3
    assert checkpoint.weights(tmp_path, "best")["1.weight"].tolist() == [4, 4]
    shutil.rmtree(tmp_path / "checkpoints" / "last")
    assert stands(tmp_path) == 2


def damage(path, how):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.unlink()
    if how != "gone":
        path.write_bytes(content if how == "flipped" else content[: len(content) // 2])


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "manifest.json"])
@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
def test_a_damaged_one_is_passed_over_aloud_and_two_are_an_error(tmp_path, model, name, how):
    save(tmp_path, model, 1)
    save(tmp_path, model, 2)
    damage(tmp_path / "checkpoints" / "last" / name, how)
    saved = checkpoint.read(tmp_path)
    assert saved.state() == {"n": 1}
    assert len(saved.damage) == 1
    assert f"{tmp_path}/checkpoints/last is damaged: " in saved.damage[0]
    with pytest.warns(UserWarning, match=r"last is damaged: .*checkpoints/before is used instead"):
        assert checkpoint.weights(tmp_path)["1.weight"].tolist() == [1, 1]
    damage(tmp_path / "checkpoints" / "before" / name, how)
    with pytest.raises(DataError, match=r"last is damaged: .*before is damaged: .* Delete .*checkpoints to begin"):
        checkpoint.read(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", "null", '{"format": 2, "files": 7}', '{"format": 9, "files": {}}'])
def test_a_manifest_of_garbage_is_damage(tmp_path, model, content):
    save(tmp_path, model, 1)
    save(tmp_path, model, 2)
    (tmp_path / "checkpoints" / "last" / "manifest.json").write_text(content)
    assert stands(tmp_path) == 1


def test_what_replaces_a_damaged_one_leaves_the_whole_one_until_it_is_there(tmp_path, model, monkeypatch):
    save(tmp_path, model, 1)
    save(tmp_path, model, 2)
    damage(tmp_path / "checkpoints" / "last" / "state.pt", "cut")
    renamed = []
    rename = type(tmp_path).rename

    def watched(path, target):
        renamed.append(rename(path, target))
        assert stands(tmp_path) in (1, 3)

    monkeypatch.setattr(type(tmp_path), "rename", watched)
    save(tmp_path, model, 3)
    assert len(renamed) == 3
    assert stands(tmp_path) == 3


def test_another_model_is_refused(tmp_path, model):
    save(tmp_path, model, 1)
    with pytest.raises(DataError, match="was made by another model"):
        checkpoint.read(tmp_path).load_into("model", nn.Linear(2, 2))


def test_nothing_is_unpickled(tmp_path, model):
    save(tmp_path, model, 1)
    path = tmp_path / "checkpoints" / "last"
    torch.save({"n": random.Random(0)}, path / "state.pt")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["state.pt"] = checkpoint.hashlib.sha256((path / "state.pt").read_bytes()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Exception, match="[Ww]eights.only"):
        checkpoint.read(tmp_path).state()


@pytest.mark.parametrize("which", ["last", "best"])
def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, model, monkeypatch, which):
    save(tmp_path, model, 1)

    def full(path, data):
        path.write_bytes(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_flushed", full)
    with pytest.raises(DataError, match=r"MB could not be written to .*: No space left on device. \d+ MB are free"):
        save(tmp_path, model, 2, which)
    assert stands(tmp_path) == 1
    assert names(tmp_path) == ["last"]


@pytest.mark.parametrize("renames", range(4))
def test_a_process_that_dies_at_any_moment_leaves_a_whole_checkpoint(tmp_path, model, monkeypatch, renames):
    """Dies while writing (none), between the renames, and before the oldest is deleted (all three)."""
    save(tmp_path, model, 1)
    save(tmp_path, model, 2)
    with monkeypatch.context() as patch:
        left, rename = [renames], type(tmp_path).rename

        def dies(path, target):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return rename(path, target)

        def dies_at_the_end(path):
            raise KeyboardInterrupt

        patch.setattr(type(tmp_path), "rename", dies)
        if renames == 3:
            patch.setattr(checkpoint, "_flush_names", lambda path: path.name == "new" or dies_at_the_end(path))
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, model, 3)
    # Between the last two renames the new one has no name that is looked at; the one before it is as good.
    assert stands(tmp_path) == (3 if renames == 3 else 2)
    save(tmp_path, model, 4)
    assert stands(tmp_path) == 4
    assert names(tmp_path) == ["before", "last"]
