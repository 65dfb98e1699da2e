"""Whatever kills a run, and however often, it ends with the same bits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from foveal.tasks import checkpoint
from foveal.tasks.loop import fit
from foveal.tasks.run_folder import read_metrics
from foveal.tasks.task import weights_digest
from tests.tasks.killed import WAYS
from tests.tasks.tiny import Tiny, plan

ROOT = Path(__file__).parents[2]
ALONE = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    top = tmp_path_factory.mktemp("killed")
    asked = [sys.executable, "-m", "tests.tasks.killed", str(top)]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **ALONE})
    assert done.returncode == 0, done.stderr
    return top, json.loads(done.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="attempts are forked")
@pytest.mark.parametrize("way", list(WAYS))
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(killed, way):
    top, told = killed[0], killed[1][way]
    whole, cut = told["digests"]
    assert cut == whole
    *cuts, last = told["statuses"]
    assert set(cuts) == {-9}, "an attempt came to its end, or failed, before it was to die"
    assert last == 0
    number = list(WAYS).index(way)
    lines = [read_metrics(top / f"{number}-{name}") for name in ("whole", "cut")]
    assert [{**line, "seconds": 0} for line in lines[0]] == [{**line, "seconds": 0} for line in lines[1]]
    assert [line["epoch"] for line in lines[0]] == list(range(1, WAYS[way]["epochs"] + 1))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="attempts are forked")
def test_ten_of_the_kills_were_at_steps_and_some_within_an_epoch_and_a_checkpoint(killed):
    told = killed[1]["all, a checkpoint every two steps"]
    assert sum(kind == "step" for kind, _ in told["moments"]) == 10
    assert {"rename", "write", "evaluation", "time"} <= {kind for kind, _ in told["moments"]}
    assert any(step % 5 for step in told["stood"])
    assert max(told["stood"]) > 0


def test_the_best_of_a_killed_run_is_the_best_of_a_whole_one(killed):
    number = list(WAYS).index("all, a checkpoint every two steps")
    best = [checkpoint.weights(killed[0] / f"{number}-{name}", "best") for name in ("whole", "cut")]
    assert best[0].keys() == best[1].keys()
    assert all((best[0][key] == best[1][key]).all() for key in best[0])
    states = [checkpoint.read(killed[0] / f"{number}-{name}", "best").state() for name in ("whole", "cut")]
    assert states[0] == states[1]


@pytest.mark.parametrize("cadence", [{"save_seconds": 0.0}, {"save_steps": 2}, {"save_seconds": 0.004}])
def test_how_often_checkpoints_are_written_changes_no_number(tmp_path, cadence):
    told = []
    for name, often in (("never", {}), ("often", cadence)):
        task = Tiny(parts=2)
        (tmp_path / name).mkdir()
        asked = plan(**{"accumulate": 2, "ema": 0.9, "save_seconds": 1e9, **often})
        metrics = fit(task, asked, tmp_path / name)
        told.append((weights_digest(task.models["model"]), {**metrics, "train_seconds": 0}))
    assert told[0] == told[1]
