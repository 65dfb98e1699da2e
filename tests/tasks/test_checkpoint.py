"""Checkpoints are whole or not there, and damage is named."""

import errno
import random

import numpy as np
import pytest
import torch
from torch import nn

from foveal.errors import DataError
from foveal.tasks import checkpoint


@pytest.fixture
def models():
    return {"model": nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).to(memory_format=torch.channels_last)}


def drawn():
    return random.random(), float(np.random.rand()), float(np.random.randn()), float(torch.rand(()))


def test_weights_state_and_every_generator_come_back(tmp_path, models):
    np.random.randn()  # leaves half of a pair of normal numbers in the generator
    checkpoint.save(tmp_path, models, {"position": {"epoch": 3}, "odd": [1, 2.5, None, "x"]})
    kept, expected = {k: v.clone() for k, v in models["model"].state_dict().items()}, drawn()
    nn.init.zeros_(models["model"][0].weight)
    assert checkpoint.load(tmp_path, models) == {"position": {"epoch": 3}, "odd": [1, 2.5, None, "x"]}
    assert drawn() == expected
    assert all(torch.equal(value, kept[key]) for key, value in models["model"].state_dict().items())


def test_there_is_none_before_the_first(tmp_path, models):
    assert checkpoint.load(tmp_path, models) is None
    with pytest.raises(DataError, match="holds none"):
        checkpoint.weights(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_damage_is_recognised_and_named(tmp_path, models, name, damage):
    checkpoint.save(tmp_path, models, {})
    path = tmp_path / "checkpoint" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.unlink()
    if damage != "gone":
        path.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"{tmp_path}/checkpoint is damaged: .*Delete that folder to begin"):
        checkpoint.load(tmp_path, models)


def test_another_model_is_refused(tmp_path, models):
    checkpoint.save(tmp_path, models, {})
    with pytest.raises(DataError, match="was made by another model"):
        checkpoint.load(tmp_path, {"model": nn.Linear(2, 2)})


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, models, monkeypatch):
    checkpoint.save(tmp_path, models, {"n": 1})

    def full(path, data):
        path.write_bytes(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_flushed", full)
    with pytest.raises(DataError, match=r"MB could not be written to .*: No space left on device. \d+ MB are free"):
        checkpoint.save(tmp_path, models, {"n": 2})
    assert checkpoint.load(tmp_path, models) == {"n": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("cut", ["while writing", "between the renames", "before the old one is deleted"])
def test_a_process_that_dies_at_any_moment_leaves_a_whole_checkpoint(tmp_path, models, cut):
    checkpoint.save(tmp_path, models, {"n": 1})
    (tmp_path / checkpoint.NEW).mkdir()
    (tmp_path / checkpoint.NEW / "model.safetensors").write_bytes(b"half")
    if cut == "between the renames":
        (tmp_path / checkpoint.NAME).rename(tmp_path / checkpoint.OLD)
    if cut == "before the old one is deleted":
        (tmp_path / checkpoint.OLD).mkdir()
    assert checkpoint.load(tmp_path, models) == {"n": 1}
    checkpoint.save(tmp_path, models, {"n": 2})
    assert checkpoint.load(tmp_path, models) == {"n": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
