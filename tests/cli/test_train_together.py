"""``foveal train`` in several processes: one speaks, and the batch script goes on with what was stopped."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 300
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo localhost; else echo "$@" >> requeued; fi
"""
TORCHRUN = f"""#!/bin/bash
exec {sys.executable} -m torch.distributed.run "$@"
"""


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def test_what_a_user_did_wrong_is_said_once(tmp_path):
    asked = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "foveal"]
    asked += ["train", "small/digits-none", "--batch-size", "63", "--out", str(tmp_path / "run")]
    done = subprocess.run(asked, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == ""
    assert done.stderr.count("OptionError: ") == 1
    assert done.stderr.count("reading the data") == 1
    assert "must be a multiple of 2 (processes times --accumulate), got 63. Use 62, say." in done.stderr
    # Which of them ends first stops the other, unless that one has ended, too.
    statuses = re.findall(r"exitcode  : (-?\d+)", done.stderr)
    assert "2" in statuses and set(statuses) <= {"2", "-15"}
    assert not (tmp_path / "run").exists()


def test_a_process_leaves_with_its_last_words_and_its_status():
    script = "import atexit; from foveal.cli.together import leave; "
    script += "atexit.register(print, 'left'); print('said'); leave(3)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "said\nleft\n", "")
    alone = [sys.executable, "-m", "foveal", "--version"]
    assert subprocess.run(alone, env=environment(RANK="0"), check=False).returncode == 0


def test_the_batch_script_asks_for_the_queue_again_and_then_finishes(tmp_path):
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "torchrun": TORCHRUN}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    script = ["bash", str(ROOT / "examples" / "slurm" / "train.sbatch"), "small/digits-none", "--epochs", "6"]
    script += ["--out", str(tmp_path / "run"), "--save-seconds", "1000"]
    told = environment(
        PATH=f"{tmp_path}:{os.environ['PATH']}", SLURM_JOB_NODELIST="one", SLURM_NNODES="1", SLURM_JOB_ID="7", GPUS="2"
    )
    with open(tmp_path / "log", "w") as log:
        job = subprocess.Popen(script, cwd=tmp_path, env=told, stdout=log, stderr=log)
        until = time.monotonic() + PATIENCE
        while not (tmp_path / "run" / "metrics.csv").exists() and job.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        job.send_signal(signal.SIGUSR1)
        status = job.wait(PATIENCE)
    said = (tmp_path / "log").read_text()
    assert status == 1, said
    assert said.count("Interrupted. The same command goes on where") == 1
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    state = tmp_path / "run" / "checkpoints" / "last" / "manifest.json"
    assert state.exists()
    again = subprocess.run(script, cwd=tmp_path, env=told, capture_output=True, text=True, timeout=PATIENCE)
    assert again.returncode == 0, again.stderr[:2000]
    assert "epoch 1:" not in again.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["epochs"] == 6
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
