"""Several processes do what one does: the same steps and checkpoints, stopped together, alive after a kill."""

import fcntl
import json
import os
import shutil

import pytest
import torch

from foveal.errors import OptionError
from foveal.tasks import distributed
from foveal.tasks.run_folder import NOTES
from tests.tasks.elastic import differing, ended, killed_once, launch
from tests.tasks.several import EPOCHS, STEPS, kept, train

NAMES = ("plain", "rich", "split", "random", "split_random", "split_random:stopped", "rich:half")
CLOSE = 1e-5


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What two processes made of every name, in one launch for all workers of the test run."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "two_processes"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            ended(launch(folder, *NAMES), folder)
            (folder / "done").touch()
    return folder


def told(pair, name):
    return json.loads((pair / f"{name}.json").read_text())


@pytest.mark.parametrize(("name", "alone"), [("plain", "plain"), ("rich", "rich"), ("split", "rich")])
def test_two_processes_take_the_steps_of_one(pair, tmp_path, name, alone):
    one, two = train(tmp_path / "one", alone), told(pair, name)
    assert two["processes"] == 2
    assert len(two["curve"]) == len(one["curve"]) == EPOCHS * STEPS
    assert one["curve"][0] - one["curve"][-1] > 0.1
    assert max(abs(a - b) for a, b in zip(one["curve"], two["curve"], strict=True)) <= CLOSE
    assert all(abs(two["metrics"][key] - one["metrics"][key]) <= CLOSE for key in ("error", "train_loss"))
    left, right = kept(tmp_path / "one"), kept(pair / name)
    assert left.keys() == right.keys()
    assert max(float((left[key] - right[key]).abs().max()) for key in left) <= CLOSE


def test_all_processes_stop_after_the_same_step_and_go_on_exactly(pair):
    stopped = told(pair, "split_random_stopped")["stopped"]
    assert stopped[0] == stopped[1]
    assert 10 < stopped[0]["step"] < EPOCHS * STEPS
    assert differing(pair / "split_random", pair / "split_random_stopped") == []


def test_one_process_goes_on_where_two_were_stopped(pair, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(pair / "rich_half", folder)
    with pytest.warns(UserWarning, match="processes 2 -> 1"):
        train(folder, "rich")
    whole = train(tmp_path / "one", "rich")
    left, right = kept(tmp_path / "one"), kept(folder)
    assert max(float((left[key] - right[key]).abs().max()) for key in left) <= CLOSE
    assert "processes 2 -> 1" in (folder / NOTES).read_text()
    assert len(whole["curve"]) == EPOCHS * STEPS


def test_a_killed_process_is_started_again_and_the_weights_end_the_same(pair, tmp_path):
    killed_once(tmp_path / "killed", pair / "random", process=1, step=11)


def test_split_weights_are_kept_whole(pair):
    assert all(type(tensor) is torch.Tensor and tensor.is_contiguous() for tensor in kept(pair / "split").values())
    shapes = [{name: tuple(tensor.shape) for name, tensor in kept(pair / name).items()} for name in ("rich", "split")]
    assert shapes[0] == shapes[1]


def test_alone_nothing_is_set_up(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert not distributed.start()
    assert (distributed.rank(), distributed.world(), distributed.is_main()) == (0, 1, True)
    assert distributed.summed({"a": 1.5}) == {"a": 1.5}
    assert distributed.gathered("x") == ["x"]
    assert distributed.broadcast("x") == "x"


def test_half_an_environment_is_refused(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(OptionError, match=r"so LOCAL_RANK, MASTER_ADDR, MASTER_PORT must be too. Start the command by"):
        distributed.start()


def test_shares_are_equal_and_in_order():
    assert [list(distributed.share(range(6), rank, 3)) for rank in range(3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(OptionError, match="a batch must part evenly among 4 processes, got 6 images"):
        distributed.share(range(6), 0, 4)
