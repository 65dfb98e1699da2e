"""A run goes on from the checkpoint before a damaged one and says so; a full disk stops it with the last one whole."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from foveal.errors import DataError, OptionError
from foveal.tasks import checkpoint
from foveal.tasks.loop import fit
from foveal.tasks.run_folder import read_metrics
from foveal.tasks.task import weights_digest
from tests.tasks.tiny import Tiny, plan, train


def cut(folder):
    with pytest.raises(KeyboardInterrupt):
        train(folder, stop=9, how=2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "manifest.json"])
def test_a_run_goes_on_from_the_one_before_aloud_and_ends_with_the_same_bits(tmp_path, name):
    whole = train(tmp_path / "whole")
    cut(tmp_path / "cut")
    flip(tmp_path / "cut" / "checkpoints" / "last" / name)
    with pytest.warns(UserWarning, match=r"last is damaged: .*\. The run goes on from .*before\."):
        assert train(tmp_path / "cut") == whole
    (line,) = (tmp_path / "cut" / "notes.txt").read_text().splitlines()
    assert "last is damaged" in line
    lines = [read_metrics(tmp_path / name) for name in ("whole", "cut")]
    assert [line["size"] for line in lines[0]] == [line["size"] for line in lines[1]]


def test_two_damaged_ones_are_one_sentence_and_nothing_is_begun_anew(tmp_path):
    cut(tmp_path)
    for name in ("last", "before"):
        flip(tmp_path / "checkpoints" / name / "state.pt")
    with pytest.raises(DataError, match=r"^checkpoint: none that is whole is left: .*last is damaged: .*before is dam"):
        train(tmp_path)


def test_another_model_is_refused_in_a_sentence(tmp_path):
    from torch import nn

    cut(tmp_path)
    task = Tiny()
    task.build = lambda: setattr(task, "models", {"model": nn.Linear(4, 1)})
    with pytest.raises(DataError, match="was made by another model"):
        fit(task, plan(), tmp_path)


def test_other_threads_are_said_aloud(tmp_path):
    import torch

    cut(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        told = rf"goes on with threads {threads} -> {threads + 1}; its numbers may differ from here on"
        with pytest.warns(UserWarning, match=told):
            train(tmp_path)
    finally:
        torch.set_num_threads(threads)


def test_a_run_that_was_whole_is_not_made_a_sharded_one(tmp_path, monkeypatch):
    cut(tmp_path)
    from foveal.tasks import standing

    monkeypatch.setattr(standing, "numerics", lambda descent: {"shard": True})
    with pytest.raises(OptionError, match="fit: shard must stay what it was in a run, got True after False"):
        train(tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 300 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    asked = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    if os.name != "posix" or shutil.which("mount") is None or subprocess.run(asked, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs rights")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_full_stops_the_run_with_the_last_checkpoint_whole(small_disk, tmp_path):
    whole = train(tmp_path / "whole")
    cut(small_disk)
    before = checkpoint.read(small_disk).state()["position"]
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(bytes(400_000))
    with pytest.raises(DataError, match=r"checkpoint: .* MB could not be written to .*No space left on device. 0 MB"):
        train(small_disk)
    assert checkpoint.read(small_disk).state()["position"] == before
    assert not (small_disk / "checkpoints" / "new").exists()
    filler.unlink()
    task = Tiny()
    fit(task, plan(), small_disk)
    assert weights_digest(task.models["model"]) == whole
