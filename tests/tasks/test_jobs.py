"""Jobs in turn and in processes: the same records, whoever dies, and what is raised ends all."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from foveal.errors import FovealError, OptionError
from foveal.tasks import jobs
from foveal.tasks.jobs import Where, run_jobs
from foveal.tasks.processes import _sendable
from tests.tasks.tiny_jobs import EPOCHS, Jobs, Told

INTERRUPTED = """
import sys
from pathlib import Path
from foveal.tasks.jobs import Where, run_jobs
from tests.tasks.tiny_jobs import Jobs, Told
if __name__ == "__main__":
    try:
        run_jobs(Jobs(Path(sys.argv[1])), ["slow-a", "slow-b"], Where(2), Told())
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What an undisturbed run ends with."""
    return run_jobs(Jobs(tmp_path_factory.mktemp("alone")), ["plain"], Where(), Told())["plain"]["digest"]


def test_a_process_that_is_killed_is_replaced_and_its_job_ends_with_the_same_weights(tmp_path, alone):
    told = Told()
    done = run_jobs(Jobs(tmp_path), ["killed", "plain", "doomed"], Where(2), told)
    assert {name: record["name"] for name, record in done.items()} == {n: n for n in ("killed", "plain", "doomed")}
    assert told.records == done
    assert done["killed"]["digest"] == done["plain"]["digest"] == alone
    assert told.epochs["killed"] == told.epochs["plain"] == EPOCHS
    assert "its process was ended from outside (status -9), 3 times" in done["doomed"]["reason"]
    assert sum(line.startswith("killed: its process was ended") for line in told.lines) == 1
    assert sum(line.startswith("doomed:") for line in told.lines) == jobs.TRIES - 1
    assert os.getpid() not in {done["killed"]["process"], done["plain"]["process"]}


def test_what_a_job_raises_ends_all_and_is_not_tried_again(tmp_path):
    told = Told()
    with pytest.raises(OptionError, match="the rate is wrong"):
        run_jobs(Jobs(tmp_path), ["wrong", "plain"], Where(2), told)
    assert told.lines == []
    with pytest.raises(OptionError, match="the rate is wrong"):
        run_jobs(Jobs(tmp_path / "turn"), ["wrong"], Where(), told)


def test_being_stopped_leaves_a_checkpoint_of_every_job_and_the_same_call_goes_on(tmp_path, alone):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, str(tmp_path)], env=environment)
    work = Jobs(tmp_path)
    try:
        until = time.monotonic() + 60
        while not all((work.folder(name) / "stepping").exists() for name in ("slow-a", "slow-b")):
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.kill()
    for name in ("slow-a", "slow-b"):
        assert list(work.folder(name).rglob("manifest.json"))
    done = run_jobs(work, ["slow-a", "slow-b"], Where(), Told())
    assert {record["digest"] for record in done.values()} == {alone}


def test_termination_interrupts_who_waits_for_jobs():
    before = signal.getsignal(signal.SIGTERM)
    with jobs.termination_interrupts(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_threads_are_shared_among_the_jobs():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with jobs.threads_of_a_run(Where(2)) as threads:
            assert threads == torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with jobs.threads_of_a_run(Where(cluster="auto", cpus=3)) as threads:
            assert threads == 3
    finally:
        torch.set_num_threads(before)


def test_an_error_that_cannot_be_sent_is_told_in_words():
    class Odd(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} {two}")

    told = _sendable(Odd(1, 2))
    assert isinstance(told, FovealError)
    assert str(told) == "Odd: 1 2"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (Where(0), "--jobs must be at least 1, got 0"),
        (Where(10_000), "--jobs must be at most the cores"),
        (Where(cpus=2), "got no --cluster"),
        (Where(gpus=1.0), "got no --cluster"),
        (Where(2, "auto"), "--jobs 2 is for runs on this machine"),
        (Where(cluster="auto", cpus=0), "--cpus of 1 or more"),
        (Where(cluster="auto", gpus=-1.0), "--gpus of 0 or more"),
    ],
)
def test_a_place_that_cannot_be_is_one_sentence(where, said):
    with pytest.raises(OptionError, match=said):
        where.check("sweep")
