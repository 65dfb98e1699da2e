"""Jobs on a real Ray cluster of this machine: two workers, one of which is killed; and what is said without one."""

import os
import socket
import sys
import time

import pytest

from foveal.errors import BackendError, DataError, OptionError
from foveal.tasks import cluster
from foveal.tasks.jobs import Where, run_jobs
from tests.tasks.tiny_jobs import EPOCHS, Jobs, Told

AUTO = Where(cluster="auto")


@pytest.fixture(scope="module")
def ray():
    """A cluster of two cores that talks to this machine alone, as long as this module's tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Ray would keep a token in the home folder.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        ray = pytest.importorskip("ray", reason="needs the extra cluster: Ray is not installed")
        ray.init(
            num_cpus=2, object_store_memory=80 * 2**20, include_dashboard=False, _node_ip_address="127.0.0.2",
            log_to_driver=False, logging_level="error",
        )  # fmt: skip
        yield ray
        ray.shutdown()


def test_an_address_where_nobody_listens_is_said_at_once(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    begun = time.monotonic()
    with pytest.raises(BackendError, match=f"no Ray cluster answers at '{address}'.*ray start --head"):
        run_jobs(Jobs(tmp_path), ["plain"], Where(cluster=address), Told())
    assert time.monotonic() - begun < cluster.KNOCK + 5


def test_a_killed_worker_s_run_goes_on_elsewhere_and_ends_with_the_same_weights(ray, tmp_path):
    told = Told()
    done = run_jobs(Jobs(tmp_path), ["killed", "plain"], AUTO, told)
    assert done["killed"]["digest"] == done["plain"]["digest"]
    assert told.records == done
    assert [line.partition(" (")[0] for line in told.lines] == ["killed: its worker was ended from outside"]
    assert os.getpid() not in {done["killed"]["process"], done["plain"]["process"]}
    assert done["plain"]["threads"] == 1
    assert not [path.name for path in (tmp_path / "runs").iterdir() if path.name.startswith(".cluster")]


def test_what_a_run_raises_ends_all_and_is_not_tried_again(ray, tmp_path):
    told = Told()
    with pytest.raises(OptionError, match="the rate is wrong"):
        run_jobs(Jobs(tmp_path), ["wrong"], AUTO, told)
    assert told.lines == []


def test_being_interrupted_leaves_a_checkpoint_from_which_the_same_call_goes_on(ray, tmp_path):
    class Interrupts(Told):
        def at(self, name, epochs, metrics):
            if 0 < epochs < EPOCHS:
                raise KeyboardInterrupt

    work = Jobs(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_jobs(work, ["slow"], AUTO, Interrupts())
    assert list(work.folder("slow").rglob("manifest.json"))
    assert not (work.folder("slow") / "ended").exists()
    done = run_jobs(work, ["slow", "plain"], AUTO, Told())
    assert done["slow"]["digest"] == done["plain"]["digest"]


def test_another_cluster_than_the_one_this_process_is_in_is_refused(ray, tmp_path):
    with pytest.raises(BackendError, match="this process is connected to .* already"):
        run_jobs(Jobs(tmp_path), ["plain"], Where(cluster="127.0.0.1:1"), Told())


def test_resources_that_no_machine_has_are_said(ray, tmp_path):
    told = Told()
    with cluster._sign(Jobs(tmp_path), ["plain"]) as sign:
        cluster._Sitting(ray, Jobs(tmp_path), Where(cluster="auto", cpus=3, gpus=1), told, sign).tell_what_lacks()
    assert len(told.lines) == 1
    assert "has 3 CPUs and 1 GPUs for a run, the largest have 2 CPUs and 0 GPUs" in told.lines[0]


def test_a_machine_that_does_not_see_the_folder_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "SEEN", 0.0)
    with pytest.raises(DataError, match=r"does not see .*Use an --out that all machines"):
        cluster._task(Jobs(tmp_path), 1, tmp_path / "gone" / "sign", str(tmp_path), "plain")


def test_without_ray_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BackendError, match=r"needs Ray, which is not installed.*pip install 'foveal\[cluster\]'"):
        cluster.check_installed()
